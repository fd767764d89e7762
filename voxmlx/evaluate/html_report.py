"""Reports as one HTML page that needs nothing else: tables, plots and the worst utterances."""

from __future__ import annotations

import html
from collections.abc import Sequence

from voxmlx.evaluate.plots import Line, histogram, line_plot
from voxmlx.evaluate.rates import align
from voxmlx.evaluate.results import Evaluation, Record, summarize
from voxmlx.evaluate.text_report import Table, delay_table, rate_table, worst

_STYLE = """
body { font: 16px/1.5 sans-serif; max-width: 60em; margin: 2em auto; padding: 0 1em; color: #222 }
table { border-collapse: collapse; margin: 1em 0 } td, th { padding: .2em .7em; text-align: right;
border-bottom: 1px solid #ddd } svg { width: 100%; max-width: 44em } .diff { line-height: 2 }
del { background: #fdd } ins { background: #dfd; text-decoration: none } small { color: #666 }
"""


def html_report(evaluations: Sequence[Evaluation], n_worst: int = 20) -> str:
    """The page of one or more evaluations; plots hold all of them."""
    title = ", ".join(dict.fromkeys(e.data for e in evaluations))
    parts = [f"<h1>Word error rate: {html.escape(title)}</h1>"]
    if len(evaluations) > 1:
        parts.append(_table(delay_table(evaluations)))
    parts += _plots(evaluations)
    for evaluation in evaluations:
        parts += _section(evaluation, n_worst)
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f"<title>{html.escape(title)}</title><style>{_STYLE}</style></head><body>"
        + "\n".join(parts)
        + "</body></html>\n"
    )


def _plots(evaluations: Sequence[Evaluation]) -> list[str]:
    parts = []
    lines = [_delay_line(e) for e in evaluations]
    if any(len(line.x) > 1 for line in lines):
        parts += ["<h2>Error against delay</h2>", line_plot(lines, "delay in ms", "WER in %")]
    if len({e.bits for e in evaluations}) > 1:
        parts += [
            "<h2>Error against bits</h2>",
            line_plot(_bits_lines(evaluations), "mean bits of a weight", "WER in %"),
        ]
    latencies = [x for e in evaluations for r in e.records for x in r.latencies_s]
    if latencies:
        parts += ["<h2>Latency of words</h2>", histogram(latencies, "seconds")]
    return parts


def _delay_line(evaluation: Evaluation) -> Line:
    delays = sorted(d for d in evaluation.delays if d is not None)
    sums = [summarize(evaluation.at(delay)) for delay in delays]
    return Line(
        evaluation.model,
        delays,
        [100 * s.words.rate for s in sums],
        [100 * s.low for s in sums],
        [100 * s.high for s in sums],
    )


def _bits_lines(evaluations: Sequence[Evaluation]) -> list[Line]:
    """A line for each delay that all have; one point a model."""
    common = [d for d in evaluations[0].delays if all(d in e.delays for e in evaluations)]
    ordered = sorted(evaluations, key=lambda e: e.bits)
    return [
        Line(
            "own delay" if delay is None else f"{delay} ms",
            [e.bits for e in ordered],
            [100 * summarize(e.at(delay)).words.rate for e in ordered],
        )
        for delay in common
    ]


def _section(evaluation: Evaluation, n_worst: int) -> list[str]:
    parts = [
        f"<h2>{html.escape(evaluation.model)}</h2>",
        f"<p>{evaluation.bits:g} bits a weight, {evaluation.size_mb:.1f} MB; normaliser "
        f"{html.escape(evaluation.normalizer)}; intervals from resampled utterances.</p>",
        _table(rate_table(evaluation)),
    ]
    if evaluation.failures:
        items = "".join(f"<li>{html.escape(e)}</li>" for e in evaluation.failures.values())
        parts.append(f"<h3>Not read</h3><ul>{items}</ul>")
    records = worst(evaluation.records, n_worst)
    if records:
        parts.append("<h3>Worst utterances</h3>")
        parts += [_diff(record) for record in records]
    return parts


def _diff(record: Record) -> str:
    """Right words plain, reference words that were missed struck, words put in marked."""
    words = []
    for kind, reference, hypothesis in align(record.reference, record.hypothesis):
        missed, got = (html.escape(" ".join(side)) for side in (reference, hypothesis))
        if kind == "equal":
            words.append(got)
        else:
            words += [f"<del>{missed}</del>"] * bool(missed) + [f"<ins>{got}</ins>"] * bool(got)
    delay = "" if record.delay_ms is None else f", {record.delay_ms} ms"
    head = f"{html.escape(record.id)}{delay}: {record.words.errors} / {record.words.reference}"
    return f'<p class="diff"><small>{head}</small><br>{" ".join(words)}</p>'


def _table(table: Table) -> str:
    rows = []
    for number, row in enumerate(table):
        tag = "td" if number else "th"
        rows.append("<tr>" + "".join(f"<{tag}>{html.escape(c)}</{tag}>" for c in row) + "</tr>")
    return f"<table>{''.join(rows)}</table>"
