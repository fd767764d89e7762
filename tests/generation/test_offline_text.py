"""Decoding of the offline model: pieces, reuse and guesses change nothing but the work done."""

from __future__ import annotations

import mlx.core as mx
import numpy as np
import pytest

from tests.generation.offline_model import tiny_voxtral
from tests.oracle import offline_native as native
from voxmlx.audio.mel import LogMelSpectrogram
from voxmlx.config import KVCacheConfig
from voxmlx.generation import offline_text
from voxmlx.generation.chat_prompt import Clip, Message, chat_prompt, transcription_prompt
from voxmlx.generation.offline_text import TextDecoder, TextOptions
from voxmlx.tokenizer import Tokenizer

TOKENIZER = Tokenizer.from_dict(native.tekken())
MODEL = tiny_voxtral()
NO_EOS = -1


def clip(seconds: float = 3.0, seed: int = 0) -> Clip:
    samples = native.recording(seconds, seed)
    return Clip(samples, MODEL.chunk_samples, MODEL.chunk_tokens)


def decoder(context: int = 512, eos_id: int = NO_EOS, **options) -> TextDecoder:
    return TextDecoder(MODEL, eos_id, context, **options)


def naive(prompt, n: int) -> list[int]:
    """Greedy ids by whole forward passes without a kept cache."""
    mel = LogMelSpectrogram(MODEL.config.audio)
    parts = []
    for piece in prompt.pieces:
        if isinstance(piece, Clip):
            chunks = mx.array(mel(piece.padded)).reshape(-1, MODEL.chunk_frames, 128)
            parts.append(MODEL.embed_audio(chunks).reshape(1, piece.n_tokens, -1))
        else:
            parts.append(MODEL.embed_tokens(list(piece)))
    ids: list[int] = []
    for _ in range(n):
        x = mx.concatenate([*parts, *(MODEL.embed_tokens([i]) for i in ids)], axis=1)
        hidden = MODEL(x, MODEL.decoder.make_cache(x.shape[1], window=512))
        ids.append(int(mx.argmax(MODEL.decoder.logits(hidden[:, -1:])).item()))
    return ids


def test_equals_whole_forward_passes():
    prompt = transcription_prompt(TOKENIZER, clip(), "en")

    ids = list(decoder().generate(prompt, TextOptions(max_tokens=12)))

    assert ids == naive(prompt, 12)
    assert len(set(ids)) > 3


@pytest.mark.parametrize("size", [1, 7, 64])
def test_pieces_of_the_prompt_change_nothing(size, monkeypatch):
    prompt = transcription_prompt(TOKENIZER, clip())
    expected = list(decoder().generate(prompt, TextOptions(max_tokens=8)))

    monkeypatch.setattr(offline_text, "PREFILL_POSITIONS", size)
    one = decoder()
    got = list(one.generate(prompt, TextOptions(max_tokens=8)))

    assert got == expected
    assert one.n_passes >= len(prompt) // size


def test_next_turn_starts_where_the_prompts_part():
    sound, one = clip(), decoder()
    first = [Message("user", (sound, "a"))]
    answer = list(one.generate(chat_prompt(TOKENIZER, first), TextOptions(max_tokens=6)))
    text = TOKENIZER.decode(answer)
    turns = [*first, Message("assistant", (text or "e",)), Message("user", ("b",))]
    prompt = chat_prompt(TOKENIZER, turns)

    got = list(one.generate(prompt, TextOptions(max_tokens=6)))

    assert one.n_reused >= sound.n_tokens + 5
    assert got == list(decoder().generate(prompt, TextOptions(max_tokens=6)))


def test_same_prompt_again_reuses_all_but_its_last_position():
    prompt, one = transcription_prompt(TOKENIZER, clip()), decoder()
    first = list(one.generate(prompt, TextOptions(max_tokens=9)))
    encode_s = one.encode_s

    assert list(one.generate(prompt, TextOptions(max_tokens=9))) == first
    assert one.n_reused == len(prompt) - 1
    assert one.encode_s == encode_s


def test_reuse_from_the_middle_of_a_recording():
    one, long = decoder(), clip(3.0)
    list(one.generate(transcription_prompt(TOKENIZER, long), TextOptions(max_tokens=3)))
    one._keep(17)  # inside the third chunk

    prompt = transcription_prompt(TOKENIZER, long)
    got = list(one.generate(prompt, TextOptions(max_tokens=6)))

    assert one.n_reused == 17
    assert got == list(decoder().generate(prompt, TextOptions(max_tokens=6)))


def test_other_recording_is_not_mistaken():
    one = decoder()
    list(one.generate(transcription_prompt(TOKENIZER, clip(seed=0)), TextOptions(max_tokens=3)))

    prompt = transcription_prompt(TOKENIZER, clip(seed=1))
    got = list(one.generate(prompt, TextOptions(max_tokens=6)))

    assert one.n_reused == 3
    assert got == list(decoder().generate(prompt, TextOptions(max_tokens=6)))


@pytest.mark.parametrize("likely", [False, True])
def test_guesses_change_nothing_but_the_passes(likely):
    prompt = transcription_prompt(TOKENIZER, clip())
    plain, guessing = decoder(), decoder()
    expected = list(plain.generate(prompt, TextOptions(max_tokens=200, guess=False)))

    options = TextOptions(max_tokens=200, likely_text=expected if likely else ())
    got = list(guessing.generate(prompt, options))

    assert got == expected
    assert guessing.n_passes < plain.n_passes * (0.4 if likely else 0.9)


def test_wrong_guesses_are_harmless():
    prompt = transcription_prompt(TOKENIZER, clip())
    expected = list(decoder().generate(prompt, TextOptions(max_tokens=60, guess=False)))
    wrong = [i if n % 5 else (i + 1) % 1280 for n, i in enumerate(expected)]

    assert list(decoder().generate(prompt, TextOptions(max_tokens=60, likely_text=wrong))) == (
        expected
    )


def test_stops_at_eos_and_at_the_end_of_the_context():
    prompt = transcription_prompt(TOKENIZER, clip())
    ids = list(decoder().generate(prompt, TextOptions(max_tokens=30)))
    eos = ids[10]

    assert list(decoder(eos_id=eos).generate(prompt, TextOptions())) == ids[: ids.index(eos) + 1]
    full = list(decoder(context=len(prompt) + 20).generate(prompt, TextOptions()))
    assert full == ids[:20]


def test_abandoned_text_leaves_the_context_usable():
    prompt, one = transcription_prompt(TOKENIZER, clip()), decoder()
    expected = list(decoder().generate(prompt, TextOptions(max_tokens=40)))
    for n in (1, 5, 23):
        run = one.generate(prompt, TextOptions(max_tokens=40))
        assert [next(run) for _ in range(n)] == expected[:n]
        run.close()
        assert not one.busy

    assert list(one.generate(prompt, TextOptions(max_tokens=40))) == expected


def test_two_texts_at_a_time_are_refused():
    prompt, one = transcription_prompt(TOKENIZER, clip()), decoder()
    run = one.generate(prompt, TextOptions(max_tokens=4))
    next(run)

    with pytest.raises(RuntimeError, match="one text at a time"):
        next(one.generate(prompt, TextOptions(max_tokens=4)))
    assert len(list(run)) == 3


def test_prompt_over_the_context_is_refused():
    prompt = transcription_prompt(TOKENIZER, clip())

    with pytest.raises(ValueError, match=f"takes {len(prompt)} positions, the context holds 40"):
        next(decoder(context=40).generate(prompt, TextOptions()))


def test_draws_depend_on_the_seed_alone():
    prompt = transcription_prompt(TOKENIZER, clip())
    texts = [
        list(decoder().generate(prompt, TextOptions(20, temperature=2.0, top_p=0.9, seed=seed)))
        for seed in (1, 1, 2)
    ]

    assert texts[0] == texts[1] != texts[2]


@pytest.mark.parametrize("kv", [KVCacheConfig(8, "none"), KVCacheConfig(4, "iso")])
def test_compressed_context_decodes_and_is_smaller(kv):
    prompt = transcription_prompt(TOKENIZER, clip())
    plain, small = decoder(), decoder(kv=kv)
    expected = list(plain.generate(prompt, TextOptions(max_tokens=20)))

    got = list(small.generate(prompt, TextOptions(max_tokens=20)))

    assert len(got) == len(expected)
    assert got[0] == expected[0]
    assert small.nbytes < 0.6 * plain.nbytes


def test_options_are_checked():
    with pytest.raises(ValueError, match="max_tokens must be at least 1, got 0"):
        TextOptions(max_tokens=0)
    with pytest.raises(ValueError, match="temperature"):
        TextOptions(temperature=-1)


def test_recording_of_chunks_sees_the_whole_clips_maximum():
    quiet = np.concatenate([np.full(6400, 1e-3, np.float32), native.recording(0.4, 0)])
    both = Clip(quiet, MODEL.chunk_samples, MODEL.chunk_tokens)
    alone = Clip(quiet[:6400], MODEL.chunk_samples, MODEL.chunk_tokens)
    one = decoder()

    rows = [next(iter(one._audio(c, 0))) for c in (both, alone)]

    assert not mx.allclose(rows[0], rows[1], atol=1e-3).item()
