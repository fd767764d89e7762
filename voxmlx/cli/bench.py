"""``voxmlx bench``: how fast a model transcribes on this machine."""

from __future__ import annotations

import json as json_module
import time
from dataclasses import asdict
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from voxmlx.cli.common import (
    DType,
    DTypeOption,
    ModelOption,
    RevisionOption,
    UsageError,
    open_model,
)

if TYPE_CHECKING:
    from voxmlx.benchmark import Measurement, Sweep
    from voxmlx.models.voxtral_realtime import VoxtralRealtime
    from voxmlx.peers.compare import Comparison

EXAMPLES = """\
voxmlx bench
voxmlx bench talk.mp3 --model mistralai/Voxtral-Mini-4B-Realtime-2602
voxmlx bench talk.mp3 --peers --peer mlx-audio=envs/mlx-audio/bin/python
voxmlx bench --random-weights 4b --bits 4 --rows 1 --rows 16 --json
voxmlx bench --random-weights tiny --plot speed.png"""

PLOTTED_ROWS = [1, 2, 4, 8]


class Size(str, Enum):
    """Networks that can be made with random weights."""

    RELEASE = "4b"
    TINY = "tiny"


def run(
    file: Annotated[
        str | None, typer.Argument(help="A recording; without one, noise of --seconds.")
    ] = None,
    model: ModelOption = None,
    random_weights: Annotated[
        Size | None,
        typer.Option("--random-weights", help="A network of this size with random weights."),
    ] = None,
    bits: Annotated[
        int | None, typer.Option("--bits", help="Pack the random weights in so many bits.")
    ] = None,
    seconds: Annotated[float, typer.Option("--seconds", min=1, help="Length of the noise.")] = 20.0,
    rows: Annotated[
        list[int] | None,
        typer.Option("--rows", min=1, max=64, help="Copies decoded together; may be repeated."),
    ] = None,
    positions: Annotated[
        int | None,
        typer.Option("--positions", min=1, max=64, help="Positions to try in every pass."),
    ] = None,
    runs: Annotated[int, typer.Option("--runs", min=1, help="Runs; the quickest counts.")] = 2,
    peers: Annotated[
        list[str] | None,
        typer.Option(
            "--peer",
            metavar="NAME=PYTHON",
            envvar="VOXMLX_PEERS",
            help="Compare with old-voxmlx, mlx-audio or transformers, run by the Python of its "
            "environment, under --peers; may be repeated.",
        ),
    ] = None,
    run_peers: Annotated[
        bool, typer.Option("--peers", help="Run the other programs in turn with this one.")
    ] = False,
    plot: Annotated[
        Path | None,
        typer.Option(
            "--plot",
            metavar="PNG",
            help="Draw the real-time factor by length, an eighth of the audio to all of it, and by "
            "--rows (1, 2, 4 and 8), a quarter of it each.",
        ),
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object a line.")] = False,
    dtype: DTypeOption = None,
    revision: RevisionOption = None,
) -> None:
    """Measure speed and memory of a model on this machine.

    Prints the real-time factor (time for a second of audio), the time to the first token, positions
    and milliseconds of a pass, and the largest memory. Random weights need no download; their
    guesses never hold, so they show the slowest case.
    """
    if random_weights is not None and model is not None:
        raise UsageError("--random-weights and --model exclude each other")
    if bits is not None and random_weights is None:
        raise UsageError("--bits needs --random-weights")
    if plot is not None and run_peers:
        raise UsageError("--plot and --peers exclude each other")
    from voxmlx.audio.decode import read_audio
    from voxmlx.benchmark import measure_best, noise, sweep
    from voxmlx.cli import bench_plot

    canvas = None if plot is None else bench_plot.figure()  # tells of a missing extra at once
    if run_peers:
        if model is None:
            raise UsageError("--peers needs --model")
        samples = noise(seconds) if file is None else read_audio(file)
        _compare(model, revision, dtype, samples, peers or [], runs, json)
        return
    started = time.perf_counter()
    network = (
        _random(random_weights, bits, dtype) if random_weights else _load(model, revision, dtype)
    )
    more = {"load_s": time.perf_counter() - started} | _step(network)
    samples = noise(seconds) if file is None else read_audio(file)
    if plot is not None:
        title = f"random weights, {random_weights.value}" if random_weights else model or "4B"
        swept = sweep(network, samples, rows or PLOTTED_ROWS, runs, positions_per_pass=positions)
        bench_plot.draw(canvas, swept, title)
        bench_plot.save(canvas, plot)
        _show_sweep(swept, more, json)
        return
    for n in rows or [1]:
        found = measure_best(network, [samples] * n, runs, positions_per_pass=positions)
        _show(found, more, json)


def _compare(
    model: str,
    revision: str | None,
    dtype: DType | None,
    samples: Any,
    peers: list[str],
    runs: int,
    json: bool,
) -> None:
    from voxmlx.checkpoints.hub import resolve
    from voxmlx.peers.compare import compare

    pythons = dict(peer.partition("=")[::2] for peer in peers)
    if not pythons or not all(pythons.values()):
        raise UsageError("--peers needs --peer NAME=PYTHON, or VOXMLX_PEERS in the environment")
    pipeline = open_model(model, revision, dtype)
    tokenizer = resolve(model, revision) / "tekken.json"

    def own(clip: Any) -> list[int]:
        return pipeline.generate(clip, sample_rate=16000).tokens

    try:
        found = list(compare(pipeline.model, tokenizer, own, {"": samples}, pythons, turns=runs))
    except ValueError as error:
        raise UsageError(str(error)) from error
    for result in found[0][1]:
        print(json_module.dumps(asdict(result)) if json else _peer_line(result))


def _peer_line(result: Comparison) -> str:
    return (
        f"{result.program}: {result.wall_s:.2f} s, {result.cpu_s:.2f} s of processor time, "
        f"{result.times:.2f} times this program's, {result.same_ids:.1%} of the ids the same"
    )


def _random(size: Size, bits: int | None, dtype: DType | None) -> VoxtralRealtime:
    import mlx.core as mx

    from voxmlx.models.fuse import prepare_for_inference
    from voxmlx.models.random_model import CONFIGS, random_model

    usual = DType.FLOAT32 if size is Size.TINY else DType.BFLOAT16  # bfloat16 is slow on CPUs
    kind = getattr(mx, (usual if dtype is None else dtype).value)
    network = random_model(CONFIGS[size.value], kind, bits)
    prepare_for_inference(network)
    return network


def _load(model: str | None, revision: str | None, dtype: DType | None) -> VoxtralRealtime:
    return open_model(model, revision, dtype).model


def _step(network: VoxtralRealtime) -> dict[str, float]:
    from voxmlx.benchmark import step_operations

    counts = step_operations(network)
    return {} if counts is None else {"step_operations": counts[0], "step_views": counts[1]}


def _show(found: Measurement, more: dict[str, float], json: bool, **about: Any) -> None:
    values = found.as_dict() | more
    print(json_module.dumps(values | about) if json else _line(values))


def _show_sweep(found: Sweep, more: dict[str, float], json: bool) -> None:
    for one in found.by_length:
        _show(one, more, json, panel="length")
    for batch, same in zip(found.by_rows, found.same_ids, strict=True):
        _show(batch, more, json, panel="rows", same_ids=same)


def _line(result: dict[str, float]) -> str:
    return (
        f"{result['rows']:.0f} rows of {result['audio_s'] / result['rows']:.1f} s: "
        f"RTF {result['rtf']:.3f}, first token {result['first_token_s']:.2f} s, "
        f"{result['positions_per_pass']:.2f} positions a pass, {result['ms_per_pass']:.1f} ms a "
        f"pass, {result['positions_per_s']:.0f} positions/s, peak {result['peak_gb']:.2f} GB, "
        f"{result['weight_gb_per_position']:.3f} GB of weights a position, "
        f"load {result['load_s']:.2f} s"
    )
