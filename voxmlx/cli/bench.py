"""``voxmlx bench``: how fast a model transcribes on this machine."""

from __future__ import annotations

import json as json_module
import time
from enum import Enum
from typing import TYPE_CHECKING, Annotated

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
    from voxmlx.models.voxtral_realtime import VoxtralRealtime

EXAMPLES = """\
voxmlx bench
voxmlx bench talk.mp3 --model mistralai/Voxtral-Mini-4B-Realtime-2602
voxmlx bench --random-weights 4b --bits 4 --rows 1 --rows 16 --json"""


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
    from voxmlx.audio.decode import read_audio
    from voxmlx.benchmark import measure, noise

    started = time.perf_counter()
    network = _random(random_weights, bits) if random_weights else _load(model, revision, dtype)
    load_s = time.perf_counter() - started
    samples = noise(seconds) if file is None else read_audio(file)
    for n in rows or [1]:
        results = [
            measure(network, [samples] * n, positions_per_pass=positions) for _ in range(runs)
        ]
        best = min(results, key=lambda result: result.total_s).as_dict() | {"load_s": load_s}
        print(json_module.dumps(best) if json else _line(best))


def _random(size: Size, bits: int | None) -> VoxtralRealtime:
    from voxmlx.models.fuse import prepare_for_inference
    from voxmlx.models.random_model import CONFIGS, random_model

    network = random_model(CONFIGS[size.value], bits=bits)
    prepare_for_inference(network)
    return network


def _load(model: str | None, revision: str | None, dtype: DType | None) -> VoxtralRealtime:
    return open_model(model, revision, dtype).model


def _line(result: dict[str, float]) -> str:
    return (
        f"{result['rows']:.0f} rows of {result['audio_s'] / result['rows']:.1f} s: "
        f"RTF {result['rtf']:.3f}, first token {result['first_token_s']:.2f} s, "
        f"{result['positions_per_pass']:.2f} positions a pass, {result['ms_per_pass']:.1f} ms a "
        f"pass, {result['positions_per_s']:.0f} positions/s, peak {result['peak_gb']:.2f} GB, "
        f"{result['weight_gb_per_position']:.3f} GB of weights a position, "
        f"load {result['load_s']:.2f} s"
    )
