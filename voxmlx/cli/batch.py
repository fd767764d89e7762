"""``voxmlx batch``: archives of any size to files, and on again where the last run stopped."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any

import typer

from voxmlx.cli.common import (
    BiasFileOption,
    BiasOption,
    DelayOption,
    DTypeOption,
    Format,
    FormatOption,
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

if TYPE_CHECKING:
    from voxmlx.batch.inputs import Item
    from voxmlx.batch.plan import Plan
    from voxmlx.batch.work import Done

EXAMPLES = """\
voxmlx batch recordings --output-dir texts
voxmlx batch 'archive/**/*.mp3' -o texts --format all --batch-size 16
voxmlx batch list.jsonl -o s3://bucket/texts --ray-address auto"""


def run(
    inputs: Annotated[
        list[str],
        typer.Argument(
            metavar="INPUT...",
            help="Files, folders, patterns, lists (.txt, .jsonl), or URLs that fsspec knows.",
        ),
    ],
    output_dir: Annotated[
        str,
        typer.Option("--output-dir", "-o", metavar="FOLDER|URL", help="Where outputs go."),
    ],
    model: ModelOption = None,
    delay: DelayOption = None,
    format: FormatOption = Format.TXT,
    batch_size: Annotated[
        int, typer.Option("--batch-size", min=1, max=64, help="Recordings worked on at a time.")
    ] = 8,
    retry_errors: Annotated[
        bool, typer.Option("--retry-errors", help="Try recordings again that were set aside.")
    ] = False,
    ray_address: Annotated[
        str | None,
        typer.Option(
            "--ray-address",
            metavar="ADDRESS|auto|local",
            help="Work on a Ray cluster, one model on each GPU, or on each node without any.",
        ),
    ] = None,
    ray_actors: Annotated[
        int | None, typer.Option("--ray-actors", min=1, help="Models on the Ray cluster.")
    ] = None,
    bias: BiasOption = None,
    bias_file: BiasFileOption = None,
    kv_bits: KVBitsOption = None,
    kv_rotation: KVRotationOption = KVRotation.HADAMARD,
    dtype: DTypeOption = None,
    revision: RevisionOption = None,
) -> None:
    """Transcribe any number of recordings to files.

    Run the same command again after a crash: what is finished is never done twice, and nothing
    is left half written. Recordings that cannot be read are set aside with their reason in
    errors.jsonl; the exit code is then 1.
    """
    from voxmlx.batch.inputs import find_items
    from voxmlx.batch.plan import check_settings, make_plan, write_errors
    from voxmlx.batch.store import open_store
    from voxmlx.batch.work import work
    from voxmlx.writers import FORMATS

    items = find_items(inputs)
    store = open_store(output_dir)
    formats = FORMATS if format is Format.ALL else (format.value,)
    options: dict[str, Any] = {"on_eos": "restart", "rows": batch_size}
    options |= stream_options(bias, bias_file, kv_bits, kv_rotation)
    if delay is not None:
        options["transcription_delay_ms"] = delay
    settings = {"model": model, "revision": revision, "formats": list(formats)}
    settings |= {name: value for name, value in options.items() if name != "rows"}
    check_settings(store, settings)
    plan = make_plan(items, store, formats, retry_errors)
    load = partial(open_any_model, model, revision, dtype)
    if plan.todo and ray_address is None:
        _follow(plan, work(load(), plan.todo, store, formats, **options))
    elif plan.todo:
        from voxmlx.batch.cluster import run_on_cluster

        news = run_on_cluster(
            plan.todo,
            load,
            output_dir,
            formats,
            address=str(ray_address),
            n_actors=ray_actors,
            **options,
        )
        _follow(plan, news)
    n_failed = write_errors(items, store)
    typer.echo(f"{len(items) - n_failed} of {len(items)} recordings done", err=True)
    if n_failed:
        print_error(f"{n_failed} recordings could not be read; see errors.jsonl in {output_dir}")
        raise typer.Exit(1)


def _follow(plan: Plan, news: Iterator[Done]) -> None:
    """Show progress, and name recordings that are set aside."""
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    console = Console(stderr=True)
    columns = (
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[audio]}"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    if plan.n_done or plan.n_failed:
        typer.echo(f"{plan.n_done + plan.n_failed} recordings were done before", err=True)
    audio_s = 0.0
    seen: set[Item] = set()
    with Progress(*columns, console=console, disable=not console.is_terminal) as bar:
        task = bar.add_task("", total=len(plan.todo), audio="")
        try:
            for done in news:
                if done.item in seen:
                    continue
                seen.add(done.item)
                audio_s += done.audio_s
                if done.error is not None:
                    print_error(done.error)
                bar.update(task, advance=1, audio=f"{audio_s / 3600:.1f} h")
        except ValueError as error:  # an option that this model does not have
            raise UsageError(str(error)) from error
