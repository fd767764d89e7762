"""Small plots as SVG text, without a plotting library."""

from __future__ import annotations

import html
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

WIDTH, HEIGHT = 640, 320
_LEFT, _RIGHT, _TOP, _BOTTOM = 56, 16, 16, 44
COLORS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
"""Okabe and Ito's colours, told apart by most eyes."""


@dataclass(frozen=True)
class Line:
    """Points of one colour, joined; ``low`` and ``high`` are drawn as bars where given."""

    name: str
    x: Sequence[float]
    y: Sequence[float]
    low: Sequence[float] = ()
    high: Sequence[float] = ()


def line_plot(lines: Sequence[Line], x_label: str, y_label: str) -> str:
    """Lines over a common axis that starts at 0."""
    xs = [x for line in lines for x in line.x]
    tops = [y for line in lines for y in (*line.y, *line.high)]
    if not xs:
        return ""
    frame = _Frame(0.0, max(xs) * 1.03 or 1.0, max(tops) * 1.08 or 1.0)
    parts = frame.axes(x_label, y_label)
    for number, line in enumerate(lines):
        color = COLORS[number % len(COLORS)]
        points = [(frame.x(x), frame.y(y)) for x, y in zip(line.x, line.y, strict=True)]
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
        parts.append(f'<polyline points="{path}" fill="none" stroke="{color}" stroke-width="2"/>')
        parts += [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3.5" fill="{color}"/>' for x, y in points]
        for x, low, high in zip(line.x, line.low, line.high, strict=False):
            parts.append(_segment(frame.x(x), frame.y(low), frame.x(x), frame.y(high), color))
        y = _TOP + 6 + 18 * number
        parts.append(f'<rect x="{WIDTH - 200}" y="{y}" width="12" height="12" fill="{color}"/>')
        parts.append(_text(WIDTH - 182, y + 11, line.name, "start"))
    return _svg(parts)


def histogram(values: Sequence[float], x_label: str, n_bins: int = 40) -> str:
    """How often values fall in equal bins."""
    if not values:
        return ""
    counts, edges = np.histogram(values, bins=n_bins)
    low, high = float(edges[0]), float(edges[-1])
    frame = _Frame(low, high if high > low else low + 1.0, float(counts.max()) * 1.08)
    parts = frame.axes(x_label, "words")
    for n, left, right in zip(counts, edges[:-1], edges[1:], strict=True):
        x, width = frame.x(float(left)), frame.x(float(right)) - frame.x(float(left))
        y = frame.y(float(n))
        parts.append(
            f'<rect x="{x:.1f}" y="{y:.1f}" width="{max(0.5, width - 1):.1f}" '
            f'height="{frame.y(0) - y:.1f}" fill="{COLORS[0]}"/>'
        )
    return _svg(parts)


@dataclass(frozen=True)
class _Frame:
    """Where values lie in the picture; ``y`` starts at 0."""

    x_low: float
    x_high: float
    y_high: float

    def x(self, value: float) -> float:
        share = (value - self.x_low) / (self.x_high - self.x_low)
        return _LEFT + share * (WIDTH - _LEFT - _RIGHT)

    def y(self, value: float) -> float:
        return HEIGHT - _BOTTOM - value / self.y_high * (HEIGHT - _TOP - _BOTTOM)

    def axes(self, x_label: str, y_label: str) -> list[str]:
        left, right, base = self.x(self.x_low), self.x(self.x_high), self.y(0)
        parts = [_segment(left, base, right, base), _segment(left, base, left, _TOP)]
        for value in ticks(self.x_low, self.x_high):
            parts.append(_segment(self.x(value), base, self.x(value), base + 4))
            parts.append(_text(self.x(value), base + 18, f"{value:g}"))
        for value in ticks(0, self.y_high):
            parts.append(_segment(left - 4, self.y(value), left, self.y(value)))
            parts.append(_text(left - 8, self.y(value) + 4, f"{value:g}", "end"))
        parts.append(_text((left + right) / 2, HEIGHT - 6, x_label))
        middle = (base + _TOP) / 2
        parts.append(
            f'<text x="14" y="{middle:.0f}" text-anchor="middle" '
            f'transform="rotate(-90 14 {middle:.0f})">{html.escape(y_label)}</text>'
        )
        return parts


def ticks(low: float, high: float) -> list[float]:
    """Four to ten round numbers between two values."""
    step = 10.0 ** math.floor(math.log10(high - low))
    for part in (1.0, 0.5, 0.2):
        first, last = math.ceil(low / (step * part)), math.floor(high / (step * part))
        if last - first >= 3:
            break
    return [round(i * step * part, 10) for i in range(first, last + 1)]


def _svg(parts: Sequence[str]) -> str:
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}"'
    return f'{head} font-family="sans-serif" font-size="12">' + "".join(parts) + "</svg>"


def _segment(x1: float, y1: float, x2: float, y2: float, color: str = "#666") -> str:
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke="{color}"/>'


def _text(x: float, y: float, text: str, anchor: str = "middle") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{html.escape(text)}</text>'
