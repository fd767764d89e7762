"""Real-time factor by length of audio and by batch size, drawn. Measures nothing itself."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from voxmlx.errors import MissingExtraError
from voxmlx.writers import output_error

if TYPE_CHECKING:
    from voxmlx.benchmark import Measurement, Sweep


def figure() -> Any:
    """An empty figure of Matplotlib's, which needs no display.

    Raises:
        MissingExtraError: If Matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MissingExtraError("--plot", "plot") from error
    return Figure(figsize=(9, 3.6), dpi=120, layout="constrained")


def draw(canvas: Any, found: Sweep, title: str) -> None:
    """Draw two panels.

    Args:
        canvas: From :func:`figure`.
        found: What to draw.
        title: What was measured.
    """
    left, right = canvas.subplots(1, 2)
    _panel(left, [m.audio_s for m in found.by_length], found.by_length, "audio, s")
    _panel(right, [m.rows for m in found.by_rows], found.by_rows, "recordings decoded together")
    left.set_title("one recording")
    right.set_title(f"recordings of {found.by_rows[0].audio_s / found.by_rows[0].rows:.3g} s")
    left.set_ylabel("time for a second of audio, s")
    canvas.suptitle(title)


def save(canvas: Any, path: Path) -> None:
    """Write a figure as PNG, or nothing.

    Raises:
        OutputError: If the file cannot be written.
    """
    file = io.BytesIO()
    canvas.savefig(file, format="png")
    try:
        path.write_bytes(file.getvalue())
    except OSError as error:
        raise output_error(path, error) from error


def _panel(axes: Any, x: Sequence[float], found: Sequence[Measurement], label: str) -> None:
    y = [m.rtf for m in found]
    axes.plot(x, y, "o-")
    axes.set_xscale("log", base=2)
    axes.set_xticks(x, [f"{value:.3g}" for value in x])
    axes.minorticks_off()
    axes.set_ylim(0, 1.15 * max(y))
    axes.set_xlabel(label)
    axes.grid(alpha=0.3)
