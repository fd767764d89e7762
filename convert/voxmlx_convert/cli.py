"""The command ``voxmlx-convert``: flags in; progress and a size table out."""

from __future__ import annotations

import shlex
import sys
from enum import Enum
from pathlib import Path
from typing import Annotated

import mlx.core as mx
import numpy as np
import typer
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TimeRemainingColumn
from rich.table import Table

from voxmlx.audio.decode import read_audio
from voxmlx.checkpoints.save import TensorGroup
from voxmlx.config import QuantizationConfig
from voxmlx.errors import VoxmlxError
from voxmlx.quantization.modes import MODES, ROTATED, make_quantization
from voxmlx.quantization.recipes import (
    RECIPES,
    Recipe,
    find_recipe,
    hlwq_recipe,
    parse_setting,
    uniform,
)
from voxmlx_convert.calibration.fit import METHODS, Calibration
from voxmlx_convert.calibration.sensitivity import parse_size
from voxmlx_convert.convert import Budget, Conversion, Options, convert
from voxmlx_convert.plan import Plan
from voxmlx_convert.publish import publish
from voxmlx_convert.verify import Verification, synthetic_speech

DTYPES = {"float16": mx.float16, "bfloat16": mx.bfloat16, "float32": mx.float32}


class Rotate(str, Enum):
    """What is done to the inputs of packed matrices."""

    NONE = "none"
    HADAMARD = "hadamard"


app = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)

_EPILOG = """Examples:

voxmlx-convert mistralai/Voxtral-Mini-4B-Realtime-2602 --mlx-path voxtral-4bit -q

voxmlx-convert ./voxtral --mlx-path voxtral-mixed --q-recipe mixed-4-8 --verify

voxmlx-convert ./voxtral --mlx-path out -q --q-bits 4 --q-encoder 8 --q-embedding none
"""


@app.command(epilog=_EPILOG)
def run(
    source: Annotated[
        str | None, typer.Argument(help="Folder or repository to convert.", show_default=False)
    ] = None,
    hf_path: Annotated[
        str | None, typer.Option("--hf-path", help="The same as SOURCE.", show_default=False)
    ] = None,
    mlx_path: Annotated[Path, typer.Option("--mlx-path", help="The new folder.")] = Path(
        "mlx_model"
    ),
    dtype: Annotated[
        str | None,
        typer.Option(
            "--dtype",
            help=f"Type of what is not quantised: {', '.join(DTYPES)}. Default: the source's.",
            show_default=False,
        ),
    ] = None,
    quantize: Annotated[
        bool, typer.Option("-q", "--quantize", help="Quantise every large matrix.")
    ] = False,
    q_bits: Annotated[
        int | None,
        typer.Option("--q-bits", help="Bits of a weight: 2, 3, 4, 5, 6 or 8.", show_default=False),
    ] = None,
    q_group_size: Annotated[
        int | None,
        typer.Option(
            "--q-group-size", help="Weights that share a scale: 32, 64 or 128.", show_default=False
        ),
    ] = None,
    q_mode: Annotated[
        str | None,
        typer.Option("--q-mode", help=f"{', '.join(MODES)}. Default: affine.", show_default=False),
    ] = None,
    q_recipe: Annotated[
        str | None,
        typer.Option("--q-recipe", help=f"One of {', '.join(RECIPES)}.", show_default=False),
    ] = None,
    q_encoder: Annotated[
        str | None,
        typer.Option(
            "--q-encoder",
            help="Encoder and adapter: none, bits (8), bits/group (8/32) or a mode.",
            show_default=False,
        ),
    ] = None,
    q_embedding: Annotated[
        str | None,
        typer.Option("--q-embedding", help="Embedding and head, likewise.", show_default=False),
    ] = None,
    q_rotate: Annotated[
        Rotate,
        typer.Option("--q-rotate", help="Rotate the inputs of affine matrices, in blocks of 128."),
    ] = Rotate.NONE,
    hlwq: Annotated[
        int | None,
        typer.Option(
            "--hlwq",
            help="Pack as HLWQ with 2 to 6 bits: small to download, read as floating point.",
            show_default=False,
        ),
    ] = None,
    q_target_size: Annotated[
        str | None,
        typer.Option(
            "--q-target-size",
            help="Choose bits for each matrix so that the model takes at most this, such as 2.4GB.",
            show_default=False,
        ),
    ] = None,
    calibrate: Annotated[
        list[str] | None,
        typer.Option(
            "--calibrate",
            metavar="AUDIO|examples",
            help="Fit packed weights to speech: a file or folder, may be repeated, or the "
            "package's own recordings. Needs the float model in memory.",
            show_default=False,
        ),
    ] = None,
    calibrate_seconds: Annotated[
        float, typer.Option("--calibrate-seconds", help="Audio to calibrate on.")
    ] = 120.0,
    calibrate_method: Annotated[
        str,
        typer.Option(
            "--calibrate-method",
            help=f"{', '.join(METHODS)}; gptq goes layer by layer and needs least memory.",
        ),
    ] = "gptq",
    dequantize: Annotated[
        bool, typer.Option("-d", "--dequantize", help="Bring a quantised source back to floats.")
    ] = False,
    report: Annotated[
        bool,
        typer.Option("--report", help="Write report.html: size, memory and error of each matrix."),
    ] = False,
    verify: Annotated[
        bool, typer.Option("--verify", help="Compare the result with the source on audio.")
    ] = False,
    verify_audio: Annotated[
        str | None,
        typer.Option(
            "--verify-audio",
            help="Recording to verify on. Default: a synthetic one.",
            show_default=False,
        ),
    ] = None,
    revision: Annotated[
        str | None,
        typer.Option("--revision", help="Branch, tag or commit of the source.", show_default=False),
    ] = None,
    upload_repo: Annotated[
        str | None,
        typer.Option(
            "--upload-repo", help="Repository to upload to (owner/name).", show_default=False
        ),
    ] = None,
    private: Annotated[
        bool, typer.Option("--private", help="Make a new repository private.")
    ] = False,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace the new folder if it exists.")
    ] = False,
) -> None:
    """Convert a Voxtral model from any published layout to MLX weights.

    The result is a folder that voxmlx and mlx-audio read.
    """
    if (source is None) == (hf_path is None):
        raise typer.BadParameter("give the source once, as SOURCE or as --hf-path")
    try:
        options = Options(
            dtype=parse_dtype(dtype),
            recipe=None
            if q_target_size is not None
            else build_recipe(
                quantize,
                q_bits,
                q_group_size,
                q_mode,
                q_recipe,
                q_encoder,
                q_embedding,
                q_rotate is Rotate.HADAMARD,
                hlwq,
            ),
            dequantize=dequantize,
            revision=revision,
            overwrite=overwrite,
            verify_audio=_audio(verify_audio) if verify or verify_audio is not None else None,
            calibration=(
                Calibration(tuple(calibrate), calibrate_seconds, calibrate_method)
                if calibrate
                else None
            ),
            budget=build_budget(q_target_size, q_mode, q_group_size, q_rotate, q_bits, q_recipe),
            report=report,
            command=shlex.join(["voxmlx-convert", *sys.argv[1:]]),
            repo=upload_repo,
        )
        packs = options.recipe is not None or options.budget is not None
        if options.calibration is not None and (not packs or hlwq is not None):
            raise ValueError("--calibrate goes with -q, --q-recipe or --q-target-size")
        if dequantize and packs:
            raise ValueError("--dequantize leaves nothing to quantise; drop the -q flags")
        conversion = _convert(str(source if hf_path is None else hf_path), mlx_path, options)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error
    _report(conversion)
    if upload_repo is not None:
        typer.echo(publish(conversion.folder, upload_repo, private))


def parse_dtype(name: str | None) -> mx.Dtype | None:
    """The type of a name.

    Raises:
        ValueError: If there is none.
    """
    if name is None:
        return None
    if name not in DTYPES:
        raise ValueError(f"--dtype must be one of {', '.join(DTYPES)}, got {name!r}")
    return DTYPES[name]


def build_recipe(
    quantize: bool = False,
    bits: int | None = None,
    group_size: int | None = None,
    mode: str | None = None,
    recipe: str | None = None,
    encoder: str | None = None,
    embedding: str | None = None,
    rotated: bool = False,
    hlwq: int | None = None,
) -> Recipe | None:
    """The recipe that the quantisation flags ask for; ``None`` if there are no such flags.

    Raises:
        ValueError: If the flags contradict each other or MLX has no such format.
    """
    has_setting = bits is not None or group_size is not None or mode is not None
    if hlwq is not None:
        if quantize or has_setting or rotated or (recipe, encoder, embedding) != (None, None, None):
            raise ValueError("--hlwq is a packing of its own; drop the -q flags")
        return hlwq_recipe(hlwq)
    if recipe is not None and has_setting:
        raise ValueError("--q-recipe says bits, groups and modes; drop the other flags")
    if recipe is not None:
        result = find_recipe(recipe)
    elif quantize or has_setting:
        mode = "affine" if mode is None else mode
        result = uniform(make_quantization(mode, bits, group_size))
    elif encoder is None and embedding is None:
        if rotated:
            raise ValueError("--q-rotate goes with -q, --q-recipe or another -q flag")
        return None
    else:
        result = Recipe({})
    parts: dict[str, QuantizationConfig | None] = {}
    if encoder is not None:
        parts |= dict.fromkeys(("encoder", "adapter"), parse_setting(encoder))
    if embedding is not None:
        parts |= dict.fromkeys(("embedding", "head"), parse_setting(embedding))
    result = result.replaced(**parts)
    return result.rotated() if rotated else result


def build_budget(
    size: str | None,
    mode: str | None = None,
    group_size: int | None = None,
    rotate: Rotate = Rotate.NONE,
    bits: int | None = None,
    recipe: str | None = None,
) -> Budget | None:
    """The budget that the flags ask for; ``None`` without a size.

    Raises:
        ValueError: If the flags contradict each other or MLX has no such format.
    """
    if size is None:
        return None
    if bits is not None or recipe is not None or mode not in (None, "affine"):
        raise ValueError("--q-target-size chooses bits itself; drop --q-bits, --q-recipe, --q-mode")
    mode = ROTATED if rotate is Rotate.HADAMARD else "affine"
    setting = make_quantization(mode, None, group_size)
    return Budget(parse_size(size), setting.mode, setting.group_size)


def _audio(path: str | None) -> np.ndarray:
    return synthetic_speech() if path is None else read_audio(path)


def _convert(source: str, target: Path, options: Options) -> Conversion:
    console = Console(stderr=True)
    columns = (BarColumn(), DownloadColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, disable=not console.is_terminal) as progress:
        task = progress.add_task("writing", start=False)

        def on_start(plan: Plan) -> None:
            progress.update(task, total=plan.total.nbytes)
            progress.start_task(task)

        def on_group(group: TensorGroup) -> None:
            progress.advance(task, group.nbytes)

        def on_step(step: str) -> None:
            console.print(step, highlight=False)

        return convert(source, target, options, on_start, on_group, on_step)


def _report(conversion: Conversion) -> None:
    console = Console()
    table = Table("part", "weights", "stored as", "GB", "bits/weight")
    for row in (*conversion.plan.parts, conversion.plan.total):
        table.add_row(
            row.part,
            f"{row.n_weights:,}",
            row.settings,
            f"{row.nbytes / 1e9:.3f}",
            f"{row.bits_per_weight:.2f}",
        )
    console.print(table)
    typer.echo(
        f"{conversion.folder}: written in {conversion.seconds:.1f} s, "
        f"peak memory {conversion.peak_bytes / 1e9:.2f} GB"
    )
    if conversion.verification is not None:
        typer.echo(_describe(conversion.verification))


def _describe(v: Verification) -> str:
    return (
        f"verified on {v.n_tokens} tokens: logit error max {v.max_error:.4g}, "
        f"mean {v.mean_error:.4g} (logits' standard deviation {v.logit_std:.4g}), "
        f"KL {v.mean_kl:.4g} nats, same token {v.agreement:.2%}, "
        f"running freely {v.free_agreement:.2%}"
    )


def main() -> None:
    """Run the command; an error the user can act on is one line and exit code 1."""
    try:
        app()
    except VoxmlxError as error:
        typer.echo(f"voxmlx-convert: {error}", err=True)
        sys.exit(1)


if __name__ == "__main__":
    main()
