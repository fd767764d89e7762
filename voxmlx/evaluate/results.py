"""Results of an evaluation: records, sums over them, and their JSON form. No model here."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from voxmlx.errors import VoxmlxError
from voxmlx.evaluate.bootstrap import Difference, compare, interval
from voxmlx.evaluate.rates import Counts, total

VERSION = 1
"""Version of the JSON form."""


class ResultsError(VoxmlxError):
    """Saved results cannot be read, or cannot be compared."""


@dataclass(frozen=True)
class Record:
    """One utterance at one delay; both texts are normalised.

    ``latencies_s`` holds the latency of every word, where live use was simulated.
    """

    id: str
    language: str | None
    delay_ms: int | None
    reference: str
    hypothesis: str
    audio_s: float
    words: Counts
    characters: Counts
    latencies_s: tuple[float, ...] = ()


@dataclass(frozen=True)
class Summary:
    """Sums over some records; ``low`` and ``high`` bound the word error rate."""

    n_utterances: int
    audio_s: float
    words: Counts
    characters: Counts
    low: float
    high: float
    latencies_s: tuple[float, ...] = ()

    def latency_s(self, quantile: float) -> float | None:
        """A quantile of the words' latencies; ``None`` where none were measured."""
        return float(np.quantile(self.latencies_s, quantile)) if self.latencies_s else None


@dataclass(frozen=True)
class Evaluation:
    """What one model made of a data set.

    Attributes:
        model: Its name.
        bits: Mean bits of a weight, scales included.
        size_mb: Size of the weights in 10^6 bytes.
        data: Name of the data set.
        normalizer: How texts were normalised.
        records: Utterances at each delay.
        elapsed_s: Wall clock of all utterances at a delay, by delay.
        failures: Why recordings could not be read, by id.
    """

    model: str
    bits: float
    size_mb: float
    data: str
    normalizer: str
    records: list[Record] = field(default_factory=list)
    elapsed_s: dict[int | None, float] = field(default_factory=dict)
    failures: dict[str, str] = field(default_factory=dict)

    @property
    def delays(self) -> list[int | None]:
        """Delays that were measured, in their order."""
        return list(self.elapsed_s)

    @property
    def languages(self) -> list[str | None]:
        """Languages of the data, sorted."""
        return sorted({r.language for r in self.records}, key=lambda code: code or "")

    def at(self, delay_ms: int | None) -> list[Record]:
        """Records of one delay."""
        return [record for record in self.records if record.delay_ms == delay_ms]

    def rtf(self, delay_ms: int | None) -> float:
        """Seconds of work for one second of audio."""
        audio_s = sum(record.audio_s for record in self.at(delay_ms))
        return self.elapsed_s[delay_ms] / audio_s if audio_s else 0.0


def summarize(records: Iterable[Record]) -> Summary:
    """Sum over records."""
    records = list(records)
    low, high = interval([r.words.errors for r in records], [r.words.reference for r in records])
    return Summary(
        n_utterances=len(records),
        audio_s=sum(r.audio_s for r in records),
        words=total(r.words for r in records),
        characters=total(r.characters for r in records),
        low=low,
        high=high,
        latencies_s=tuple(latency for r in records for latency in r.latencies_s),
    )


def compare_results(a: Evaluation, b: Evaluation) -> dict[int | None, tuple[int, Difference]]:
    """Compare two evaluations utterance by utterance.

    Returns:
        For each delay that both have, the number of common utterances and the difference of the
        word error rates. Evaluations with one delay each are compared whatever their delays.

    Raises:
        ResultsError: If they have no delay or no utterance in common, or normalise differently.
    """
    if a.normalizer != b.normalizer:
        raise ResultsError(f"normalizers differ: {a.normalizer} and {b.normalizer}")
    pairs = {delay: (delay, delay) for delay in a.delays if delay in b.delays}
    if not pairs and len(a.delays) == len(b.delays) == 1:
        pairs = {b.delays[0]: (a.delays[0], b.delays[0])}
    if not pairs:
        raise ResultsError(f"no delay in common: {a.delays} and {b.delays}")
    return {name: _compare_delay(a, b, *pair) for name, pair in pairs.items()}


def _compare_delay(
    a: Evaluation, b: Evaluation, delay_a: int | None, delay_b: int | None
) -> tuple[int, Difference]:
    others = {record.id: record for record in b.at(delay_b)}
    pairs = [(record, others[record.id]) for record in a.at(delay_a) if record.id in others]
    if not pairs:
        raise ResultsError(f"{a.data} and {b.data} have no utterance in common")
    for one, other in pairs:
        if one.reference != other.reference:
            raise ResultsError(f"{one.id}: the references differ; evaluate the same data")
    difference = compare(
        [one.words.errors for one, _ in pairs],
        [other.words.errors for _, other in pairs],
        [one.words.reference for one, _ in pairs],
    )
    return len(pairs), difference


def to_dict(evaluation: Evaluation) -> dict[str, Any]:
    """The JSON form, with the sums for readers that want no more."""
    values = asdict(evaluation)
    values["elapsed_s"] = [
        {"delay_ms": delay, "seconds": round(s, 3)} for delay, s in evaluation.elapsed_s.items()
    ]
    summaries = []
    for delay in evaluation.delays:
        sums = summarize(evaluation.at(delay))
        summaries.append(
            {
                "delay_ms": delay,
                "wer": sums.words.rate,
                "wer_low": sums.low,
                "wer_high": sums.high,
                "cer": sums.characters.rate,
                "rtf": evaluation.rtf(delay),
            }
        )
    return {"version": VERSION, "summaries": summaries, **values}


def from_dict(values: dict[str, Any]) -> Evaluation:
    """Read the JSON form.

    Raises:
        KeyError, TypeError: If it is not one.
    """
    records = [
        Record(
            **{
                **r,
                "words": Counts(**r["words"]),
                "characters": Counts(**r["characters"]),
                "latencies_s": tuple(r["latencies_s"]),
            }
        )
        for r in values["records"]
    ]
    names = ("model", "bits", "size_mb", "data", "normalizer", "failures")
    return Evaluation(
        **{name: values[name] for name in names},
        records=records,
        elapsed_s={entry["delay_ms"]: entry["seconds"] for entry in values["elapsed_s"]},
    )


def read_results(path: str | Path) -> Evaluation:
    """Read a file that ``voxmlx eval --json`` wrote.

    Raises:
        ResultsError: If it is not one.
    """
    try:
        return from_dict(json.loads(Path(path).read_text(encoding="utf-8")))
    except OSError as error:
        raise ResultsError(f"{path}: cannot be read: {error.strerror}") from error
    except (ValueError, KeyError, TypeError) as error:
        raise ResultsError(
            f"{path}: expected results of 'voxmlx eval --json', got something else ({error})"
        ) from error
