"""Reports as Markdown: tables of error rates, and the worst utterances with what went wrong."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from voxmlx.evaluate.bootstrap import Difference
from voxmlx.evaluate.rates import Edit, align
from voxmlx.evaluate.results import Evaluation, Record, Summary, summarize

Table = list[list[str]]
"""Rows of cells; the first row holds the heads."""


def percent(rate: float) -> str:
    """A rate as a percentage with two digits."""
    return f"{100 * rate:.2f}"


def delay_name(delay_ms: int | None) -> str:
    """A delay as a table shows it; the offline model has none."""
    return "–" if delay_ms is None else str(delay_ms)


def rate_table(evaluation: Evaluation) -> Table:
    """A row for each delay and language, and for each delay over all languages."""
    head = "delay ms,language,utterances,WER %,95 %,CER %,sub,ins,del,RTF,latency s (50/90 %)"
    table = [head.split(",")]
    for delay in evaluation.delays:
        records = evaluation.at(delay)
        groups = [("all", records)]
        if len(evaluation.languages) > 1:
            groups += [
                (language or "?", [r for r in records if r.language == language])
                for language in evaluation.languages
            ]
        for name, group in groups:
            rtf = f"{evaluation.rtf(delay):.3f}" if name == "all" else ""
            table.append([delay_name(delay), name, *_rates(summarize(group)), rtf])
            table[-1].append(_latency(summarize(group)))
    if not any(row[-1] for row in table[1:]):
        table = [row[:-1] for row in table]
    return table


def _rates(sums: Summary) -> list[str]:
    words = sums.words
    return [
        str(sums.n_utterances),
        percent(words.rate),
        f"{percent(sums.low)}–{percent(sums.high)}",
        percent(sums.characters.rate),
        str(words.substitutions),
        str(words.insertions),
        str(words.deletions),
    ]


def _latency(sums: Summary) -> str:
    half, most = sums.latency_s(0.5), sums.latency_s(0.9)
    return "" if half is None or most is None else f"{half:.2f} / {most:.2f}"


def delay_table(evaluations: Sequence[Evaluation]) -> Table:
    """Word error rate of several models, a row for each delay."""
    delays = sorted(
        {d for e in evaluations for d in e.delays}, key=lambda d: -1 if d is None else d
    )
    table = [["delay ms", *(e.model for e in evaluations)]]
    table.append(["bits", *(f"{e.bits:g}" for e in evaluations)])
    table.append(["MB", *(f"{e.size_mb:.1f}" for e in evaluations)])
    for delay in delays:
        cells = [
            percent(summarize(e.at(delay)).words.rate) if delay in e.delays else ""
            for e in evaluations
        ]
        table.append([delay_name(delay), *cells])
    return table


def compare_table(differences: dict[int | None, tuple[int, Difference]]) -> Table:
    """Word error rate of B minus that of A, with a verdict."""
    table = ["delay ms,utterances,B − A (points),95 %,p,verdict".split(",")]
    for delay, (n, d) in differences.items():
        verdict = "no difference"
        if d.significant:
            verdict = "B is better" if d.value < 0 else "A is better"
        table.append(
            [
                delay_name(delay),
                str(n),
                f"{100 * d.value:+.2f}",
                f"{100 * d.low:+.2f} to {100 * d.high:+.2f}",
                f"{d.p_value:.3f}",
                verdict,
            ]
        )
    return table


def worst(records: Iterable[Record], n: int) -> list[Record]:
    """The records with most word errors, those with the higher rate first among equals."""
    wrong = [record for record in records if record.words.errors]
    return sorted(wrong, key=lambda r: (-r.words.errors, -r.words.rate, r.id))[:n]


def diff_lines(edits: Iterable[Edit]) -> tuple[str, str]:
    """Reference and hypothesis under one another; wrong words in capitals, gaps as stars."""
    above, below = [], []
    for kind, reference, hypothesis in edits:
        for i in range(max(len(reference), len(hypothesis))):
            left = reference[i] if i < len(reference) else ""
            right = hypothesis[i] if i < len(hypothesis) else ""
            width = max(len(left), len(right))
            if kind != "equal":
                left, right = left.upper() or "*" * width, right.upper() or "*" * width
            above.append(left.ljust(width))
            below.append(right.ljust(width))
    return " ".join(above).rstrip(), " ".join(below).rstrip()


def markdown_table(table: Table) -> str:
    """A Markdown table."""
    lines = ["| " + " | ".join(row) + " |" for row in table]
    return "\n".join([lines[0], "|" + "---|" * len(table[0]), *lines[1:]]) + "\n"


def markdown_report(evaluation: Evaluation, n_worst: int = 10) -> str:
    """The whole report of one evaluation."""
    parts = [
        f"# {evaluation.model} on {evaluation.data}\n",
        f"{evaluation.bits:g} bits a weight, {evaluation.size_mb:.1f} MB; normaliser "
        f"`{evaluation.normalizer}`; intervals from resampled utterances.\n",
        markdown_table(rate_table(evaluation)),
    ]
    if evaluation.failures:
        parts.append("## Not read\n")
        parts.append("\n".join(f"- {error}" for error in evaluation.failures.values()) + "\n")
    records = worst(evaluation.records, n_worst)
    if records:
        parts.append("## Worst utterances\n")
    for record in records:
        delay = "" if record.delay_ms is None else f", {record.delay_ms} ms"
        lines = diff_lines(align(record.reference, record.hypothesis))
        parts.append(
            f"{record.id}{delay}: {record.words.errors} errors in {record.words.reference} words\n"
        )
        parts.append(f"```text\n{lines[0]}\n{lines[1]}\n```\n")
    return "\n".join(parts)
