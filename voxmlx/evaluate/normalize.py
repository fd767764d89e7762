"""Text as error rates compare it: without what two good transcripts may differ in.

The normalisers are those published with Whisper, kept in the ``whisper-normalizer`` library. Words
are what spaces separate; characters of scripts without spaces are words of their own.
"""

from __future__ import annotations

import unicodedata
import warnings
from collections.abc import Callable
from functools import cache
from typing import Literal, get_args

from voxmlx.errors import MissingExtraError
from voxmlx.words.characters import is_unspaced

Normalization = Literal["auto", "english", "basic", "none"]
NORMALIZATIONS: tuple[str, ...] = get_args(Normalization)


def normalize(text: str, language: str | None = None, method: Normalization = "auto") -> str:
    """Bring text to its compared form.

    Args:
        text: What was said or recognised.
        language: Two-letter code; only ``auto`` asks for it.
        method: ``english`` spells numbers, contractions and British words alike, ``basic`` drops
            case, punctuation and marks, ``none`` leaves all but the spaces, and ``auto`` takes
            ``english`` for English and ``basic`` for other languages and unknown ones.

    Raises:
        MissingExtraError: If the normalisers are not installed.
        ValueError: If the method is unknown.
    """
    if method not in NORMALIZATIONS:
        raise ValueError(f"normalizer must be one of {', '.join(NORMALIZATIONS)}, got {method!r}")
    if method == "auto":
        method = "english" if language == "en" else "basic"
    if method != "none":
        text = _normalizer(method)(text)
    return " ".join(unicodedata.normalize("NFC", text).split())


def split_words(text: str) -> list[str]:
    """Words of normalised text; Chinese, Japanese, Thai and the like by character."""
    spaced = "".join(f" {char} " if is_unspaced(char) else char for char in text)
    return spaced.split()


def split_characters(text: str) -> list[str]:
    """Characters of normalised text; a space between words counts as one."""
    return list(text)


@cache
def _normalizer(method: str) -> Callable[[str], str]:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # its docstrings hold unknown escapes
            from whisper_normalizer.basic import BasicTextNormalizer
            from whisper_normalizer.english import EnglishTextNormalizer
    except ModuleNotFoundError as error:
        raise MissingExtraError("Evaluation", "eval") from error
    made: Callable[[str], str] = (
        EnglishTextNormalizer() if method == "english" else BasicTextNormalizer()
    )
    return made
