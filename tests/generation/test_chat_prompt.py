"""Prompts equal mistral_common's; wrong conversations are refused with a reason."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.oracle import offline_native as native
from voxmlx.generation.chat_prompt import (
    LANGUAGES,
    Clip,
    Message,
    Prompt,
    chat_prompt,
    transcription_prompt,
)
from voxmlx.tokenizer import Tokenizer

FIXTURES = Path(__file__).parents[1] / "fixtures"
TOKENIZER = Tokenizer.from_dict(native.tekken())
AUDIO_ID = 24


def clip(seconds: float = 2.0) -> Clip:
    return Clip(np.full(int(seconds * 16000), 0.1, np.float32), 480000, 375)


def ids(prompt: Prompt) -> list[int]:
    return [
        token
        for piece in prompt.pieces
        for token in ([AUDIO_ID] * piece.n_tokens if isinstance(piece, Clip) else piece)
    ]


@pytest.mark.parametrize("language, name", [("en", "prompt_en"), (None, "prompt_auto")])
@pytest.mark.parametrize("case, seconds", [("a", 30.7), ("b", 12.3)])
def test_transcription_equals_mistral_common(case, seconds, language, name):
    expected = np.load(FIXTURES / f"offline_{case}.npz")[name].tolist()

    prompt = transcription_prompt(TOKENIZER, clip(seconds), language)

    assert ids(prompt) == expected
    assert len(prompt) == len(expected)


def test_chat_equals_mistral_common():
    sound = clip(12.3)
    messages = [
        Message("user", (sound, "Hi", "you", sound)),
        Message("assistant", ("Yes.",)),
        Message("user", ("and",)),
    ]

    prompt = chat_prompt(TOKENIZER, messages)

    assert ids(prompt) == np.load(FIXTURES / "offline_b.npz")["prompt_chat"].tolist()


@pytest.mark.parametrize(
    "messages, expected",
    [
        # Each was seen to equal mistral_common 1.13; bytes of the texts are their ids less 1000.
        ([("user", ("H",)), ("user", ("Y",))], [1, 3, 1072, 1010, 1010, 1089, 4]),
        ([("user", ("H", "", clip()))], [1, 3, 1072, 25, *[24] * 375, 4]),
        ([("system", ("B",)), ("user", ("Y",))], [1, 17, 1066, 18, 3, 1089, 4]),
        (
            [("system", ("B",)), ("system", ("O",)), ("user", ("Y",))],
            [1, 17, 1066, 18, 17, 1079, 18, 3, 1089, 4],
        ),
        (
            [("user", ("Y",)), ("assistant", ("H",)), ("assistant", ("O",)), ("user", ("Y",))],
            [1, 3, 1089, 4, 1072, 1010, 1010, 1079, 2, 3, 1089, 4],
        ),
        ([("assistant", ("H",)), ("user", ("Y",))], [1, 1072, 2, 3, 1089, 4]),
    ],
)
def test_turns(messages, expected):
    assert ids(chat_prompt(TOKENIZER, [Message(*message) for message in messages])) == expected


def test_keys_tell_recordings_apart():
    same, other = clip(), Clip(np.zeros(32000, np.float32), 480000, 375)
    prompts = [transcription_prompt(TOKENIZER, c).keys() for c in (clip(), same, other)]

    assert prompts[0] == prompts[1]
    assert prompts[0][:3] == prompts[2][:3]
    assert not set(prompts[0][3:378]) & set(prompts[2][3:378])
    assert len(set(prompts[0][3:378])) == 375


@pytest.mark.parametrize(
    "messages, match",
    [
        ([], "messages must hold at least one message, got none"),
        ([("user", ("H",)), ("assistant", ("Y",))], "last message must be the user's, got role"),
        ([("system", ("B",))], "last message must be the user's"),
        ([("system", ("B",)), ("user", (clip(),))], "no system prompt together with audio"),
        ([("user", ("H",)), ("system", ("B",)), ("user", ("H",))], "only stand at the start"),
    ],
)
def test_wrong_conversations(messages, match):
    with pytest.raises(ValueError, match=match):
        chat_prompt(TOKENIZER, [Message(*message) for message in messages])


def test_wrong_messages():
    with pytest.raises(ValueError, match="role must be one of system, user, assistant, got 'tool'"):
        Message("tool", ("x",))
    with pytest.raises(ValueError, match="only a user's message may hold audio, got it in 'assis"):
        Message("assistant", (clip(),))
    with pytest.raises(ValueError, match="must hold samples, got none"):
        Clip(np.zeros(0, np.float32), 480000, 375)


def test_unknown_language_names_the_known_ones():
    with pytest.raises(ValueError, match="language must be one of ar, de, .* got 'zh'"):
        transcription_prompt(TOKENIZER, clip(), "zh")
    assert len(LANGUAGES) == 9
