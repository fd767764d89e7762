"""``voxmlx eval``: error rates of a model on a data set, and whether two models differ."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from voxmlx.cli.common import (
    BiasFileOption,
    BiasOption,
    DType,
    DTypeOption,
    KVBitsOption,
    KVRotation,
    KVRotationOption,
    ModelOption,
    RevisionOption,
    UsageError,
    open_any_model,
    print_error,
    stream_options,
)
from voxmlx.config import SUPPORTED_DELAYS_MS

if TYPE_CHECKING:
    from voxmlx.evaluate.manifest import Utterance
    from voxmlx.evaluate.results import Evaluation

EXAMPLES = """\
voxmlx eval LibriSpeech/test-other --model tiny
voxmlx eval fleurs/en_us/test.tsv --delays 160,480,960,2400 --html report.html
voxmlx eval talks.jsonl --live --json talks.json
voxmlx eval --compare float.json int4.json
voxmlx eval --with float.json --with int4.json --html both.html"""


class Normalizer(str, Enum):
    """How texts are brought to a common form before they are compared."""

    AUTO = "auto"
    ENGLISH = "english"
    BASIC = "basic"
    NONE = "none"


def _check_delays(value: str | None) -> str | None:
    parse_delays(value)
    return value


def parse_delays(value: str | None) -> list[int | None]:
    """Delays of ``--delays``; without it the model's own.

    Raises:
        typer.BadParameter: If one is not supported.
    """
    if value is None:
        return [None]
    if value == "all":
        return list(SUPPORTED_DELAYS_MS)
    delays: list[int | None] = []
    for text in value.split(","):
        if not text.strip().isdigit() or int(text) not in SUPPORTED_DELAYS_MS:
            known = ", ".join(map(str, SUPPORTED_DELAYS_MS))
            raise typer.BadParameter(f"{text.strip()!r} is not one of {known}")
        if int(text) not in delays:
            delays.append(int(text))
    return delays


def run(
    data: Annotated[
        Path | None,
        typer.Argument(
            metavar="FOLDER|TABLE",
            help="LibriSpeech folder, folder with text.tsv, FLEURS or Common Voice TSV, JSON "
            "lines or CSV.",
        ),
    ] = None,
    model: ModelOption = None,
    delays: Annotated[
        str | None,
        typer.Option(
            "--delays",
            metavar="MS,MS,...|all",
            callback=_check_delays,
            help="Delays to measure. Default: the model's own.",
        ),
    ] = None,
    normalizer: Annotated[
        Normalizer,
        typer.Option(
            "--normalizer",
            help="Whisper's rules for English, its basic ones, or none; auto goes by language.",
        ),
    ] = Normalizer.AUTO,
    language: Annotated[
        str | None,
        typer.Option("--language", metavar="CODE", help="Language of rows that name none."),
    ] = None,
    limit: Annotated[
        int | None, typer.Option("--limit", min=1, help="Take only the first recordings.")
    ] = None,
    batch_size: Annotated[
        int, typer.Option("--batch-size", min=1, max=64, help="Recordings worked on at a time.")
    ] = 8,
    live: Annotated[
        bool,
        typer.Option("--live", help="Play recordings as a microphone would; measures latency."),
    ] = False,
    name: Annotated[
        str | None, typer.Option("--name", help="Name of the model in reports. Default: --model.")
    ] = None,
    json: Annotated[
        Path | None, typer.Option("--json", metavar="FILE", help="Save every utterance there.")
    ] = None,
    markdown: Annotated[
        Path | None, typer.Option("--markdown", metavar="FILE", help="Write a report there.")
    ] = None,
    html: Annotated[
        Path | None, typer.Option("--html", metavar="FILE", help="Write a report with plots.")
    ] = None,
    others: Annotated[
        list[Path] | None,
        typer.Option("--with", metavar="FILE", help="Show saved results too; may be repeated."),
    ] = None,
    compare: Annotated[
        tuple[Path, Path] | None,
        typer.Option("--compare", metavar="A B", help="Compare two saved results; runs nothing."),
    ] = None,
    bias: BiasOption = None,
    bias_file: BiasFileOption = None,
    kv_bits: KVBitsOption = None,
    kv_rotation: KVRotationOption = KVRotation.HADAMARD,
    dtype: DTypeOption = None,
    revision: RevisionOption = None,
) -> None:
    """Measure the word and character error rate of a model.

    Tables go to standard output. Confidence intervals and comparisons resample utterances.
    A recording that cannot be read is left out and reported; the exit code is then 1.
    """
    from voxmlx.evaluate.results import read_results

    if compare is not None:
        _compare(*compare)
        return
    evaluations = [read_results(path) for path in others or ()]
    if data is None and not evaluations:
        raise UsageError("Missing argument 'FOLDER|TABLE'")
    if data is not None:
        utterances = _read(data, language, limit)
        result = _evaluate(
            utterances,
            model,
            revision,
            dtype,
            delays=parse_delays(delays),
            normalizer=normalizer,
            rows=batch_size,
            live=live,
            names=(model or "default" if name is None else name, str(data)),
            options=stream_options(bias, bias_file, kv_bits, kv_rotation),
        )
        evaluations.insert(0, result)
    _write(evaluations, json, markdown, html)
    failures = evaluations[0].failures if data is not None else {}
    for error in failures.values():
        print_error(error)
    if failures:
        raise typer.Exit(1)


def _read(data: Path, language: str | None, limit: int | None) -> list[Utterance]:
    from voxmlx.evaluate.manifest import read_manifest

    return read_manifest(data, language)[:limit]


def _evaluate(
    utterances: list[Utterance],
    model: str | None,
    revision: str | None,
    dtype: DType | None,
    *,
    delays: list[int | None],
    normalizer: Normalizer,
    rows: int,
    live: bool,
    names: tuple[str, str],
    options: dict[str, Any],
) -> Evaluation:
    from rich.console import Console
    from rich.progress import Progress

    from voxmlx.evaluate.normalize import normalize
    from voxmlx.evaluate.run import evaluate

    normalize("", "en", normalizer.value)  # a missing extra shows before any work
    pipeline = open_any_model(model, revision, dtype)
    console = Console(stderr=True)
    with Progress(console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task(names[1], total=len(utterances) * len(delays))
        try:
            return evaluate(
                pipeline,
                utterances,
                delays=delays,
                normalizer=normalizer.value,
                rows=rows,
                live=live,
                model=names[0],
                data=names[1],
                on_record=lambda _: bar.advance(task),
                **options,
            )
        except ValueError as error:  # an option that this model does not have
            raise UsageError(str(error)) from error


def _write(
    evaluations: Sequence[Evaluation], json: Path | None, markdown: Path | None, html: Path | None
) -> None:
    from json import dumps

    from voxmlx.evaluate.html_report import html_report
    from voxmlx.evaluate.results import to_dict
    from voxmlx.evaluate.text_report import (
        delay_table,
        markdown_report,
        markdown_table,
        rate_table,
    )
    from voxmlx.writers import atomic_write

    table = rate_table(evaluations[0]) if len(evaluations) == 1 else delay_table(evaluations)
    sys.stdout.write(markdown_table(table))
    outputs = [
        (json, lambda: dumps(to_dict(evaluations[0]), ensure_ascii=False, indent=1) + "\n"),
        (markdown, lambda: "\n".join(markdown_report(each) for each in evaluations)),
        (html, lambda: html_report(evaluations)),
    ]
    for path, make in outputs:
        if path is not None:
            with atomic_write(path) as file:
                file.write(make())


def _compare(a: Path, b: Path) -> None:
    from voxmlx.evaluate.results import compare_results, read_results
    from voxmlx.evaluate.text_report import compare_table, markdown_table

    differences = compare_results(read_results(a), read_results(b))
    sys.stdout.write(markdown_table(compare_table(differences)))
