"""How people say a line otherwise than a dictionary does: accents, weak words, lost sounds.

Rewrites phoneme strings of Kokoro, one group of letters a word. The words that are to be written
stay as they are; the phone labels follow what is said.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable

from common import KOKORO_PHONES

VOWELS = "AIOQWYaeiouæɐɑɒɔəɚɛɜɪʊʌᵊᵻ"
VOICELESS = "ptkfθsʃʧhx"
WEAK = {  # what these words sound like when nobody leans on them
    "a": "ɐ ə A", "an": "ən ᵊn n", "and": "ənd ən n ænd", "are": "əɹ ɚ ɑɹ", "as": "əz",
    "at": "ət əʔ", "been": "bɪn bɛn", "but": "bət bəʔ", "can": "kən kᵊn", "could": "kəd",
    "do": "də du", "for": "fəɹ fɚ", "from": "fɹəm fəm", "had": "əd həd", "has": "əz həz",
    "have": "əv həv ə", "he": "i hi", "her": "ɚ hɚ", "him": "ɪm əm", "his": "ɪz həz", "in": "ən",
    "is": "əz z", "it": "ət ɪʔ", "its": "əts", "just": "ʤəst ʤəs ʤɪs", "me": "mɪ", "must": "məs",
    "my": "mə mI", "no": "nə", "not": "nət nɑʔ", "of": "əv ə ʌ", "on": "ən ɔn", "one": "wən",
    "or": "əɹ ɚ", "our": "ɑɹ", "shall": "ʃəl", "she": "ʃɪ", "should": "ʃəd", "so": "sə",
    "some": "səm", "than": "ðən ən", "that": "ðət ðəʔ", "the": "ði ðə nə", "their": "ðəɹ",
    "them": "əm ðəm", "then": "ðən", "there": "ðəɹ", "they": "ðɛ", "this": "ðəs", "to": "tə ɾə tu",
    "was": "wəz wəs", "we": "wɪ", "were": "wəɹ wɚ", "what": "wət wɑʔ", "when": "wən",
    "which": "wəʧ", "who": "hu u", "will": "wəl əl", "with": "wɪð wəθ wɪt", "would": "wəd əd",
    "you": "jə ju", "your": "jəɹ jɚ",
}  # fmt: skip
NEAR = {  # what a sound may turn into here and there; "-" is nothing
    "ɪ": "iəɛ", "i": "ɪ", "ɛ": "ɪæ", "æ": "ɛɑ", "ʌ": "əɑ", "ə": "ɪʌɐ", "ɑ": "ɔʌæ", "ɔ": "ɑʊ",
    "ʊ": "uə", "u": "ʊ", "ɜ": "ɛʌ", "A": "ɛe", "O": "ɔʊ", "I": "ɑ", "ð": "dz", "θ": "tf", "ŋ": "n",
    "z": "s", "t": "ɾʔ-d", "ɾ": "td", "T": "td", "d": "-t", "h": "-", "v": "fw", "w": "v", "ɹ": "ɾ",
    "ʤ": "ʒ", "ʒ": "ʤ", "b": "p", "ɡ": "k", "l": "w",
}  # fmt: skip
V = f"[ˈˌ]?[{VOWELS}]"
HABITS: tuple[tuple[str, str, float], ...] = (  # pattern, replacement, share of speakers
    (rf"(?<=[{VOWELS}])[tT](?= ?[{VOWELS}])", "ɾ", 0.30),
    (r"[ɾT]", "t", 0.20),
    (r"t(?=$|[ ,.;:!?])", "ʔ", 0.15),
    (r"(?<=[nslfkpʃʧθmŋ])[td](?= [bcdfɡhklmnpɹsʃtvwzθðʤʧj])", "", 0.40),
    (r"(?<=\S\S)ɪŋ(?=$|[ ,.;:!?])", "ɪn", 0.15),
    (r"(?<=[ ˈˌ])h", "", 0.08),
    (r"ð", "d", 0.08),
    (r"θ", "t", 0.08),
    (r"θ", "f", 0.04),
    (rf"(?<=[ɑɔ])ɹ(?! ?{V})", "ː", 0.12),
    (rf"(?<=[ɪʊɛ])ɹ(?! ?{V})", "ə", 0.12),
    (rf"(?:ɜɹ|ɜː)(?! ?{V})", "ɜ", 0.12),
    (rf"(?:əɹ|ɚ)(?! ?{V})", "ə", 0.15),
    (r"A", "e", 0.10),
    (r"A", "I", 0.05),
    (r"[OQ]", "o", 0.10),
    (r"[OQ]", "W", 0.04),
    (r"I", "a", 0.08),
    (r"I", "Y", 0.03),
    (r"ɪ(?!ŋ)", "i", 0.08),
    (r"i(?=\S)", "ɪ", 0.05),
    (r"ɛ", "ɪ", 0.06),
    (r"ɛ", "e", 0.10),
    (r"æ", "a", 0.15),
    (r"æ(?=[nm])", "ɛə", 0.12),
    (r"æ", "ɛ", 0.06),
    (r"æ(?=[fsθ])", "ɑː", 0.08),
    (r"[ʌ]", "ə", 0.15),
    (r"ʌ", "ʊ", 0.06),
    (r"ʌ", "a", 0.06),
    (r"ɑ(?!ː)", "ɒ", 0.12),
    (r"ɔ", "ɑ", 0.20),
    (r"ɑ(?!ɹ|ː)", "ɔ", 0.06),
    (r"ʊ", "u", 0.06),
    (r"u", "ʊ", 0.05),
    (r"z(?=$|[ ,.;:!?])", "s", 0.10),
    (r"d(?=$|[,.;:!?])", "t", 0.05),
    (r"v(?=$|[ ,.;:!?])", "f", 0.05),
    (r"w", "v", 0.03),
    (r"(?<=[tdnsl])j(?=[ˈˌ]?u)", "", 0.15),
    (r"ʤ", "ʒ", 0.04),
    (r"ɹ", "ɾ", 0.04),
    (r"l(?=$|[ ,.;:!?]|[tdkpsz])", "w", 0.05),
    (r"(?<=ŋ)(?=$|[ ,.;:!?])", "ɡ", 0.04),
    (r"(?<=[pbtdkɡszfvθðʃ])(?=[ ][pbtdkɡ])", "ə", 0.02),
)


def _loose(phonemes: str, rng: random.Random, rate: float) -> str:
    """Single sounds changed or lost at random."""
    out = [rng.choice(NEAR[c]) if c in NEAR and rng.random() < rate else c for c in phonemes]
    return "".join(out).replace("-", "")


def _weak(groups: list[str], words: list[str], rng: random.Random, rate: float) -> list[str]:
    """Function words as they sound within a phrase."""
    out = []
    for group, word in zip(groups, words, strict=True):
        if word in WEAK and rng.random() < rate:
            group = rng.choice(WEAK[word].split()) + group[len(group.rstrip(",.;:!?—…")) :]
        out.append(group)
    return out


def _reduced(group: str, rng: random.Random, rate: float) -> str:
    """Vowels without stress on their way to a schwa, stress itself weakened."""

    def soften(match: re.Match[str]) -> str:
        return rng.choice("əəɪ") if rng.random() < rate else match[0]

    group = re.sub(r"(?<![ˈˌ])(?<=\S)[ɪæɛɑʌʊ](?![ːɹ])", soften, group)
    mark = "ˌ" if rng.random() < 0.5 else ""
    return group.replace("ˈ", mark) if rng.random() < 0.25 * rate else group


def accented(phonemes: str, words: str, rng: random.Random) -> str:
    """A phoneme string as somebody might say it; every word keeps a sound of its own.

    A fifth of the lines stay as they are. The others have habits of one speaker (each rule holds
    for the whole line, or for most of it), weak function words, vowels near schwa and slips.
    """
    if rng.random() < 0.2:
        return phonemes
    spoken, text = phonemes.split(" "), words.split()
    if len(spoken) != len(text):
        return phonemes
    steps: list[Callable[[list[str]], list[str]]] = []
    weak, soft = rng.uniform(0, 0.9), rng.uniform(0, 0.5)
    steps.append(lambda groups: _weak(groups, text, rng, weak))
    steps.append(lambda groups: [_reduced(g, rng, soft) for g in groups])
    louder = rng.choice((0.4, 1.0, 1.0, 2.0))  # how far from the dictionary
    for pattern, with_, share in HABITS:
        if rng.random() < share * louder:
            often = rng.choice((1.0, 0.7))
            steps.append(_habit(re.compile(pattern), with_, often, rng))
    slips = rng.choices((0.0, 0.02, 0.06), (0.4, 0.4, 0.2))[0]
    steps.append(lambda groups: [_loose(g, rng, slips) for g in groups])
    for step in steps:
        changed = step(spoken)
        spoken = [
            new if any(c in KOKORO_PHONES for c in new) else old
            for old, new in zip(spoken, changed, strict=True)
        ]
    return " ".join(spoken)


def _habit(
    pattern: re.Pattern[str], with_: str, often: float, rng: random.Random
) -> Callable[[list[str]], list[str]]:
    def apply(groups: list[str]) -> list[str]:
        def change(match: re.Match[str]) -> str:
            return with_ if rng.random() < often else match[0]

        changed = pattern.sub(change, " ".join(groups)).split(" ")
        return changed if len(changed) == len(groups) else groups

    return apply
