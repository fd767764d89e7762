"""What characters say about words: which scripts have no spaces, what sticks, what ends a sentence.

Knows single characters and short strings; neither tokens nor times.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable

from voxmlx.types import Word

# First and last code point of scripts written without spaces between words (Unicode blocks).
_UNSPACED = (
    (0x0E00, 0x0EFF),  # Thai, Lao
    (0x1000, 0x109F),  # Myanmar
    (0x1780, 0x17FF),  # Khmer
    (0x2E80, 0x312F),  # CJK radicals and punctuation, kana, Bopomofo
    (0x31A0, 0x4DBF),  # Bopomofo and kana extensions, CJK extension A
    (0x4E00, 0x9FFF),  # CJK ideographs
    (0xF900, 0xFAFF),  # CJK compatibility ideographs
    (0xFF00, 0xFF9F),  # fullwidth punctuation, halfwidth kana
    (0x20000, 0x3FFFF),  # CJK extensions B and later
)

# Letters that lengthen or close the syllable before them: kana length marks, Thai and Lao AM.
_STICKY_LETTERS = "ーｰำຳ"
_OPENING_MARKS = "¿¡"
_CLOSERS = "\"'”’»›)]}」』）】》〉"
_SENTENCE_ENDS = ".!?…。！？｡．؟۔।॥։።‽"
_TITLES = frozenset("mr mrs ms dr prof st jr sr vs no m mme mlle hr fr sra srta".split())


def is_unspaced(char: str) -> bool:
    """Whether a character belongs to a script without spaces between words."""
    code = ord(char)
    return code >= _UNSPACED[0][0] and any(low <= code <= high for low, high in _UNSPACED)


def is_opening(char: str) -> bool:
    """Whether a mark belongs to the word after it: an opening bracket, quote or currency sign."""
    return char in _OPENING_MARKS or unicodedata.category(char) in ("Ps", "Pi", "Sc")


def sticks(char: str) -> bool:
    """Whether a character cannot start a word: punctuation, symbols and combining marks."""
    return char in _STICKY_LETTERS or not (char.isalnum() or is_opening(char))


def has_letters(text: str) -> bool:
    """Whether there is more than punctuation."""
    return any(char.isalnum() for char in text)


def ends_sentence(word: str) -> bool:
    """Whether a word closes a sentence, behind closing quotes too; titles and initials do not."""
    word = word.rstrip(_CLOSERS)
    if not word or word[-1] not in _SENTENCE_ENDS:
        return False
    stem = word[:-1].lstrip("([{«“\"'").casefold()
    return not (word[-1] == "." and (stem in _TITLES or (len(stem) == 1 and stem.isalpha())))


def ends_clause(word: str) -> bool:
    """Whether a word ends with a comma, colon or semicolon, or closes a sentence."""
    return word.rstrip(_CLOSERS)[-1:] in (*",;:،؛、，；：", "–", "—") or ends_sentence(word)


def join_words(words: Iterable[Word]) -> str:
    """Text of some words, spaced as they were written."""
    return "".join((" " if word.space_before else "") + word.text for word in words).strip()
