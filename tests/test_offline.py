"""The offline pipeline: long recordings, conversations, folders, and what it refuses."""

from __future__ import annotations

import base64
import io
import json
import logging

import numpy as np
import pytest
import soundfile

from tests.generation.offline_model import tiny_voxtral
from tests.oracle import native as realtime
from tests.oracle import offline_native as native
from voxmlx.errors import CheckpointError, SessionClosedError
from voxmlx.generation.chat_prompt import Clip
from voxmlx.offline import OfflinePipeline
from voxmlx.pipeline import Pipeline, load
from voxmlx.streaming import offline
from voxmlx.tokenizer import Tokenizer
from voxmlx.types import SegmentEnd, TextDelta

RATE = 16000
TOKENIZER = Tokenizer.from_dict(native.tekken())
MODEL = tiny_voxtral()
AUDIO = native.recording(3.0, 0)


def pipeline(context: int = 512) -> OfflinePipeline:
    return OfflinePipeline(MODEL, TOKENIZER, context=context)


def ask(*parts, role: str = "user") -> dict:
    return {"role": role, "content": list(parts)}


def sound(samples: np.ndarray = AUDIO) -> dict:
    return {"type": "audio", "audio": samples, "sample_rate": RATE}


def text(words: str) -> dict:
    return {"type": "text", "text": words}


def wav(samples: np.ndarray = AUDIO) -> bytes:
    file = io.BytesIO()
    soundfile.write(file, samples, RATE, format="WAV", subtype="FLOAT")
    return file.getvalue()


class Speaker:
    """Stands in for the network: it says one numbered word for each 100 ms of a window."""

    busy = False
    encode_s = decode_s = 0.0
    n_passes = 0

    def __init__(self, context: int):
        self.context = context
        self.clips: list[Clip] = []

    def generate(self, prompt, options):
        (clip,) = prompt.clips
        self.clips.append(clip)
        first = round(float(clip.padded[0]) * 1e4)
        words = "".join(f" w{first + i}" for i in range(clip.n_samples // 1600))
        yield from TOKENIZER.encode(words)
        yield TOKENIZER.eos_id


def counting(seconds: float) -> np.ndarray:
    """A recording whose samples tell their tenth of a second."""
    return (np.arange(int(seconds * RATE)) // 1600 * 1e-4).astype(np.float32)


def speak(seconds: float, **options) -> tuple[offline.OfflineSession, Speaker]:
    speaker = Speaker(context=512)
    session = offline.OfflineSession(
        MODEL, TOKENIZER, lambda kv: speaker, offline.OfflineOptions(**options)
    )
    return session, speaker


def run(session, samples, size: int = 5000) -> list:
    events = []
    for start in range(0, len(samples), size):
        session.feed(samples[start : start + size])
        while session.pending:
            events += session.step()
    session.close()
    while not session.done:
        events += session.step()
    return events


def test_windows_join_to_one_text():
    session, speaker = speak(40, window_s=16.0)

    events = run(session, counting(40))

    result = session.result()
    assert result.text == " ".join(f"w{i}" for i in range(400))
    assert "".join(e.text for e in events if isinstance(e, TextDelta)) == result.text
    assert [e.segment for e in events if isinstance(e, SegmentEnd)] == result.segments
    assert [clip.n_samples / RATE for clip in speaker.clips] == [16, 16, 16]
    # The windows share 4 s (a quarter), which are halved.
    assert [(s.start_s, s.end_s) for s in result.segments] == [(0, 14), (14, 26), (26, 40)]
    for segment in result.segments:
        first, last = segment.text.split()[0], segment.text.split()[-1]
        assert abs(int(first[1:]) / 10 - segment.start_s) < 1
        assert abs(int(last[1:]) / 10 - segment.end_s) < 1
    assert result.words == [] and result.duration_s == 40


@pytest.mark.parametrize("size", [1600, 100_000, 10**6])
def test_pieces_of_audio_change_nothing(size):
    session, speaker = speak(40, window_s=16.0)

    run(session, counting(40), size)

    assert session.result().text == " ".join(f"w{i}" for i in range(400))
    assert len(speaker.clips) == 3


def test_a_window_that_just_fits_is_the_only_one():
    session, speaker = speak(16, window_s=16.0)

    run(session, counting(16))

    assert len(speaker.clips) == 1
    assert session.result().segments[0].end_s == 16


def test_window_of_the_release_is_half_an_hour():
    class Release:
        config = MODEL.config
        chunk_tokens, chunk_samples = 375, 480000

    assert offline.window_samples(Release, 32768, None) == 1800 * RATE
    assert offline.window_samples(Release, 8192, None) == 450 * RATE
    with pytest.raises(ValueError, match="window_s must be 1 to 450, got 451"):
        offline.window_samples(Release, 8192, 451)


def test_long_recording_goes_through_the_network():
    result = pipeline(context=64).generate(AUDIO, sample_rate=RATE, max_tokens=10)

    # 70% of 64 positions are 8 chunks of 0.4 s; the recording has no more.
    assert len(result.segments) == 1 and len(result.tokens) == 10
    longer = np.tile(AUDIO, 3)
    result = pipeline(context=64).generate(longer, sample_rate=RATE, max_tokens=10)
    assert len(result.tokens) == 40 and result.duration_s == 9.0


def test_stream_gives_the_same_text():
    one = pipeline()
    whole = one.generate(AUDIO, sample_rate=RATE, language="de", max_tokens=40)

    pieces = list(one.generate(AUDIO, sample_rate=RATE, language="de", max_tokens=40, stream=True))

    assert "".join(pieces) == whole.text
    assert whole.language == "de" and whole.delay_ms is None
    assert whole.timings.audio_s == 3.0 and whole.timings.positions == len(whole.tokens)


def test_text_without_an_end_is_cut_and_reported(caplog):
    with caplog.at_level(logging.WARNING):
        result = pipeline().generate(AUDIO, sample_rate=RATE)

    assert len(result.tokens) == 200 + 25 * 3
    assert "3 s of audio: the text did not end within 275 tokens" in caplog.text


def test_no_audio_gives_no_text():
    session = pipeline().file_session()
    session.close()

    assert session.step() == [] and session.done
    assert session.result().text == "" and session.result().segments == []


def test_feed_after_close_and_wrong_samples():
    session = pipeline().file_session()
    with pytest.raises(ValueError, match=r"samples must be \(n,\) float32"):
        session.feed(np.zeros((2, 2), np.float32))
    with pytest.raises(ValueError, match="sample_rate must be 16000 Hz, got 8000"):
        session.feed(np.zeros(2, np.float32), 8000)
    session.close()
    with pytest.raises(SessionClosedError, match="open a new session"):
        session.feed(np.zeros(2, np.float32))


def test_conversation_goes_on_where_it_was():
    one = pipeline()
    turns = [ask(sound(), text("a"), sound(AUDIO[:9000]))]
    first = one.chat(turns, max_tokens=8)
    turns += [{"role": "assistant", "content": first.text or "e"}, ask(text("b"))]

    second = one.chat(turns, max_tokens=8)

    assert first.n_reused == 0 and second.n_reused >= first.n_prompt - 1
    assert second.tokens == pipeline().chat(turns, max_tokens=8).tokens
    assert second.finish_reason == "length" and len(second.tokens) == 8
    assert second.timings.encode_s == 0


def test_question_about_the_recording_transcribed_last():
    one = pipeline()
    one.generate(AUDIO, sample_rate=RATE, max_tokens=5)

    assert one.chat([ask(sound(), text("a"))], max_tokens=3).n_reused >= 40
    one.clear()
    assert one.chat([ask(sound(), text("a"))], max_tokens=3).n_reused == 0


def test_answers_stream_and_end():
    one = pipeline()
    whole = one.chat([ask(sound(), text("a"))], max_tokens=30)
    pieces = list(one.chat([ask(sound(), text("a"))], max_tokens=30, stream=True))

    assert "".join(pieces) == whole.text
    eos = whole.tokens[4]
    one.tokenizer = Tokenizer.from_dict(native.tekken())
    one.tokenizer.eos_id = eos
    one.clear()
    ended = one.chat([ask(sound(), text("a"))], max_tokens=30)
    assert ended.finish_reason == "stop"
    assert ended.tokens == whole.tokens[: whole.tokens.index(eos) + 1]


def test_two_streams_at_a_time_do_not_disturb_each_other():
    one = pipeline()
    expected = [one.chat([ask(sound(), text(t))], max_tokens=12).text for t in "ab"]

    runs = [one.chat([ask(sound(), text(t))], max_tokens=12, stream=True) for t in "ab"]
    texts = ["", ""]
    for _ in range(40):
        for i, each in enumerate(runs):
            texts[i] += next(each, "")

    assert texts == expected


@pytest.mark.parametrize(
    "part",
    [
        {"type": "audio", "audio": wav()},
        {"type": "input_audio", "input_audio": {"data": base64.b64encode(wav()).decode()}},
        {"type": "input_audio", "input_audio": base64.b64encode(wav()).decode()},
    ],
)
def test_ways_to_give_a_recording(part):
    one = pipeline()
    one.chat([ask(sound(), text("a"))], max_tokens=2)

    assert one.chat([ask(part, text("a"))], max_tokens=2).n_reused > 40


def test_recording_by_path(tmp_path):
    (tmp_path / "a.wav").write_bytes(wav())
    path = str(tmp_path / "a.wav")
    one = pipeline()

    answers = [
        one.chat([ask({"type": "audio", key: path}, text("a"))], max_tokens=2).tokens
        for key in ("audio", "path")
    ]

    assert answers[0] == answers[1]


@pytest.mark.parametrize(
    "messages, match",
    [
        ([], "messages must hold at least one message"),
        ("hello", "messages must be a list of dicts, got 'hello'"),
        ({"role": "user"}, "messages must be a list of dicts"),
        (["hello"], "a message must be a dict with 'role' and 'content', got 'hello'"),
        ([{"role": "user", "content": []}], "content must be a text or a list of parts"),
        ([{"role": "user", "content": [{"type": "image"}]}], "a part must be .* got {'type': 'im"),
        ([ask({"type": "input_audio", "input_audio": "?"})], r"must hold base64 data, got '\?'"),
        ([ask({"type": "input_audio"})], "must hold base64 data, got None"),
        (
            [{"role": "system", "content": "b"}, ask(sound())],
            "takes no system prompt together with audio",
        ),
    ],
)
def test_bad_conversations(messages, match):
    with pytest.raises(ValueError, match=match):
        pipeline().chat(messages)


def test_audio_longer_than_the_context():
    with pytest.raises(
        ValueError,
        match=r"takes 165 positions, 160 of them for 0.2 min of audio; the model has 128, 0.2 min",
    ):
        pipeline(context=128).chat([ask(sound(native.recording(12.5, 0)), text("a"))])


def test_bad_options():
    one = pipeline()
    with pytest.raises(ValueError, match="language must be one of ar, .* got 'klingon'"):
        one.generate(AUDIO, sample_rate=RATE, language="klingon")
    with pytest.raises(ValueError, match="transcription_delay_ms is for realtime models"):
        one.generate(AUDIO, sample_rate=RATE, transcription_delay_ms=480)
    with pytest.raises(ValueError, match="this model has no option 'rut_guard'; it has language"):
        one.generate(AUDIO, sample_rate=RATE, rut_guard=True)
    with pytest.raises(ValueError, match="window_s must be 1 to"):
        one.generate(AUDIO, sample_rate=RATE, window_s=0.5)
    with pytest.raises(ValueError, match="max_tokens must be at least 1"):
        one.chat([ask(text("a"))], max_tokens=0)


def test_load_tells_the_models_apart(tmp_path):
    ours = load(native.write(tmp_path / "a", native.draw(0), n_positions=20))
    other = load(realtime.write(tmp_path / "b", realtime.draw(0), 24, 20))

    assert isinstance(ours, OfflinePipeline) and isinstance(other, Pipeline)
    assert ours.config.audio.global_log_mel_max is None


def test_folder_of_a_text_model_is_refused(tmp_path):
    weights = {name: x for name, x in native.draw(0).items() if name.startswith("layers.")}
    folder = native.write(tmp_path, weights | {"tok_embeddings.weight": np.ones((8, 8), "f4")})
    params = json.loads((folder / "params.json").read_text())
    del params["multimodal"]
    (folder / "params.json").write_text(json.dumps(params))

    with pytest.raises(CheckpointError, match="belong to no known layout"):
        load(folder)
