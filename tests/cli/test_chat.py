"""``voxmlx chat``, and the other commands with an offline model."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest

from tests.oracle import offline_native as native
from tests.tiny import N_SPECIAL
from voxmlx.pipeline import load


@pytest.fixture(scope="module")
def offline_model(tmp_path_factory) -> Path:
    """It always writes text; its chunks last 0.4 s, or every test would wait for the encoder."""
    weights = native.draw(2)
    weights["output.weight"][:N_SPECIAL] = 0.0
    return native.write(tmp_path_factory.mktemp("offline"), weights, n_positions=20)


def answers(folder: Path, recording: Path, *questions: str, **options) -> list[str]:
    """What the Python interface answers to questions asked in turn."""
    pipeline = load(folder)
    messages, texts = [], []
    part = {"type": "audio", "audio": str(recording)}
    for question in questions:
        content = [{"type": "text", "text": question}]
        messages.append({"role": "user", "content": content if messages else [part, *content]})
        texts.append(pipeline.chat(messages, **options).text)
        messages.append({"role": "assistant", "content": texts[-1]})
    return texts


def test_prints_the_answer(cli, offline_model, recording):
    done = cli("chat", recording, "Who?", "--model", offline_model, "--max-tokens", "9")

    (expected,) = answers(offline_model, recording, "Who?", max_tokens=9)
    assert (done.code, done.out, done.err) == (0, expected + "\n", "")
    assert expected


def test_questions_from_standard_input_are_one_conversation(
    cli, offline_model, recording, monkeypatch
):
    monkeypatch.setattr("sys.stdin", io.StringIO("Who?\n\nAnd then?\n"))

    done = cli("chat", recording, "-m", offline_model, "--max-tokens", "5")

    expected = answers(offline_model, recording, "Who?", "And then?", max_tokens=5)
    assert done.out == "".join(f"{text}\n" for text in expected)


def test_several_recordings(cli, offline_model, recording):
    done = cli("chat", recording, recording, "Who?", "-m", offline_model, "--max-tokens", "3")

    assert done.code == 0


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["Who?"], "'Who?' is no file; give a recording before the question"),
        (["{recording}", "Who?", "-m", "{model}"], "this model transcribes and answers nothing"),
        (["{recording}", "Who?"], "chat needs an offline model, such as --model mistralai/"),
    ],
)
def test_bad_usage(cli, model, recording, arguments, message, monkeypatch):
    monkeypatch.delenv("VOXMLX_MODEL", raising=False)

    done = cli("chat", *(a.format(recording=recording, model=model) for a in arguments))

    assert done.code == 2 and message in done.err and done.out == ""


def test_missing_recording_is_named(cli, offline_model):
    done = cli("chat", "nowhere.wav", "Who?", "-m", offline_model)

    assert done.code == 1 and "nowhere.wav" in done.err


def test_transcribe(cli, offline_model, recording):
    arguments = ("transcribe", recording, "-m", offline_model, "--language", "fr")

    done, as_json = cli(*arguments), cli(*arguments, "-f", "json")

    expected = load(offline_model).generate(str(recording), language="fr")
    assert done.code == 0 and done.out == expected.text + "\n"
    values = json.loads(as_json.out)
    assert values["text"] == expected.text and values["language"] == "fr"
    assert len(values["segments"]) == 1


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["--language", "xx"], "language must be one of ar, de, en"),
        (["--format", "srt"], "--format srt needs times, which this model does not give"),
        (["--delay", "480"], "transcription_delay_ms is for realtime models"),
    ],
)
def test_transcribe_refuses_what_the_model_cannot(
    cli, offline_model, recording, arguments, message
):
    done = cli("transcribe", recording, "-m", offline_model, *arguments)

    assert done.code == 2 and message in done.err and done.out == ""


def test_realtime_models_take_no_language(cli, model, recording):
    done = cli("transcribe", recording, "-m", model, "--language", "en")

    assert done.code == 2 and "--language is for offline models" in done.err


def test_live_needs_a_realtime_model(cli, offline_model, recording):
    done = cli("live", recording, "--realtime", "-m", offline_model)

    assert done.code == 2 and "this command needs a realtime model" in done.err
