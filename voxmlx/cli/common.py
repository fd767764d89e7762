"""What the commands share: options with one spelling each, errors, and opening a model."""

from __future__ import annotations

import math
import sys
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from voxmlx.config import KV_BITS, SUPPORTED_DELAYS_MS

if TYPE_CHECKING:
    from voxmlx.offline import OfflinePipeline
    from voxmlx.pipeline import Pipeline

DEFAULT_MODEL = "mlx-community/Voxtral-Mini-4B-Realtime-2602-4bit"
DEFAULT_MODEL_GB = 3.1

# Typer either brings its own copy of click or uses the installed one; this class is in both.
UsageError: type[Exception] = typer.BadParameter.__mro__[1]


class DType(str, Enum):
    """Types that weights are computed in."""

    FLOAT32 = "float32"
    FLOAT16 = "float16"
    BFLOAT16 = "bfloat16"


class Format(str, Enum):
    """Formats of results; the writers' own, and all of them at once."""

    TXT = "txt"
    SRT = "srt"
    VTT = "vtt"
    TSV = "tsv"
    JSON = "json"
    ALL = "all"


class KVRotation(str, Enum):
    """What spreads outliers of keys and values before they are rounded."""

    NONE = "none"
    PLANAR = "planar"
    ISO = "iso"
    HADAMARD = "hadamard"


def _check_model(value: str | None) -> str | None:
    if value == "":
        raise typer.BadParameter("the name is empty")
    return value


def _check_delay(value: int | None) -> int | None:
    if value is not None and value not in SUPPORTED_DELAYS_MS:
        known = ", ".join(map(str, SUPPORTED_DELAYS_MS))
        raise typer.BadParameter(f"{value} is not one of {known}")
    return value


def _check_temperature(value: float) -> float:
    if not 0 <= value < math.inf:
        raise typer.BadParameter(f"{value} is not a number from 0 up")
    return value


def _check_kv_bits(value: int | None) -> int | None:
    if value is not None and value not in KV_BITS:
        raise typer.BadParameter(f"{value} is not one of {', '.join(map(str, KV_BITS))}")
    return value


ModelOption = Annotated[
    str | None,
    typer.Option(
        "--model",
        "-m",
        metavar="FOLDER|REPO|tiny",
        envvar="VOXMLX_MODEL",
        callback=_check_model,
        help="Model folder, Hugging Face repository, or the small built-in model. Default: "
        "Voxtral Mini 4B Realtime in 4 bits.",
    ),
]
RevisionOption = Annotated[
    str | None, typer.Option("--revision", help="Branch, tag or commit of the repository.")
]
DTypeOption = Annotated[
    DType | None, typer.Option("--dtype", help="Type to compute in. Default: as stored.")
]
DelayOption = Annotated[
    int | None,
    typer.Option(
        "--delay",
        "-d",
        metavar="MS",
        callback=_check_delay,
        help="How far the text runs behind the sound: 80 to 1200 by 80, or 2400. More is more "
        "accurate. Default: the model's own, 480.",
    ),
]
TemperatureOption = Annotated[
    float,
    typer.Option(
        "--temperature",
        "-t",
        callback=_check_temperature,
        help="0 takes the likeliest token; more draws at random.",
    ),
]
KVBitsOption = Annotated[
    int | None,
    typer.Option(
        "--kv-bits",
        metavar="BITS",
        callback=_check_kv_bits,
        help="Hold keys and values in 2, 3, 4 or 8 bits: less memory for long audio. Default: as "
        "computed.",
    ),
]
KVRotationOption = Annotated[
    KVRotation,
    typer.Option("--kv-rotation", help="Spreads outliers before --kv-bits rounds."),
]
BiasOption = Annotated[
    list[str] | None,
    typer.Option(
        "--bias",
        "--keyword",
        metavar="PHRASE",
        help="A name or term to expect; makes it likelier. May be repeated.",
    ),
]
BiasFileOption = Annotated[
    Path | None,
    typer.Option("--bias-file", metavar="FILE", help="Such phrases, one a line."),
]
LanguageOption = Annotated[
    str | None,
    typer.Option(
        "--language",
        "-l",
        metavar="CODE",
        help="Language spoken, such as en, for offline models. Default: the model finds it.",
    ),
]
FormatOption = Annotated[Format, typer.Option("--format", "-f", help="Format of the result.")]
OutputDirOption = Annotated[
    Path | None,
    typer.Option(
        "--output-dir",
        "-o",
        metavar="FOLDER",
        help="Write files there, made if need be, instead of to standard output.",
    ),
]


def print_error(message: str) -> None:
    """Print an error as one line to standard error."""
    line = " ".join(message.splitlines())
    typer.secho("error: ", fg="red", err=True, nl=False)
    typer.echo(line, err=True)


def stream_options(
    bias: list[str] | None, bias_file: Path | None, kv_bits: int | None, kv_rotation: KVRotation
) -> dict[str, Any]:
    """What ``--bias``, ``--bias-file``, ``--kv-bits`` and ``--kv-rotation`` ask for, no more.

    The names are fields of :class:`voxmlx.streaming.options.StreamOptions`.

    Raises:
        UsageError: As :func:`read_phrases` says.
    """
    options: dict[str, Any] = {}
    if phrases := read_phrases(bias, bias_file):
        options["context_bias"] = phrases
    if kv_bits is not None:
        options |= {"kv_bits": kv_bits, "kv_rotation": kv_rotation.value}
    return options


def read_phrases(phrases: list[str] | None, file: Path | None) -> list[str]:
    """Phrases of ``--bias`` and ``--bias-file`` together.

    Raises:
        UsageError: If the file cannot be read, or a phrase is blank.
    """
    found = list(phrases or ())
    if not all(phrase.strip() for phrase in found):
        raise UsageError("--bias: a phrase is blank")
    if file is not None:
        try:
            lines = file.read_text(encoding="utf-8-sig").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise UsageError(f"--bias-file {file}: cannot be read: {error}") from error
        found += [line.strip() for line in lines if line.strip()]
    return found


def open_model(
    model: str | None, revision: str | None = None, dtype: DType | None = None
) -> Pipeline:
    """Load the realtime model that the options name; see :func:`open_any_model`.

    Raises:
        UsageError: If it is not a realtime model, or as :func:`open_any_model` says.
    """
    from voxmlx.pipeline import Pipeline

    pipeline = open_any_model(model, revision, dtype)
    if not isinstance(pipeline, Pipeline):
        raise UsageError(
            f"{model} is of type {pipeline.config.model_type!r} and reads whole recordings; this "
            "command needs a realtime model"
        )
    return pipeline


def open_any_model(
    model: str | None, revision: str | None = None, dtype: DType | None = None
) -> Pipeline | OfflinePipeline:
    """Load the model that the options name, downloaded if need be.

    Raises:
        UsageError: If none is named, none is on this machine, and nobody can be asked.
        HubError: If it cannot be had.
        CheckpointError: If it cannot be loaded.
    """
    from voxmlx.checkpoints.hub import resolve
    from voxmlx.pipeline import load

    folder = resolve(model, revision) if model is not None else _default_model()
    return load(folder, dtype=None if dtype is None else dtype.value)


def _default_model() -> Path:
    """Folder of the default model, downloaded if the user agrees."""
    from voxmlx.checkpoints.hub import download, find_cached

    folder = find_cached(DEFAULT_MODEL)
    if folder is not None:
        return folder
    question = f"No model is on this machine. Download {DEFAULT_MODEL} ({DEFAULT_MODEL_GB} GB)?"
    interactive = sys.stdin.isatty() and sys.stderr.isatty()
    if interactive and typer.confirm(question, err=True):
        return download(DEFAULT_MODEL)
    raise UsageError(
        f"no model is on this machine; --model {DEFAULT_MODEL} downloads one "
        f"({DEFAULT_MODEL_GB} GB), --model tiny is small and built in"
    )
