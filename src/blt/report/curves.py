"""Loss curves as SVG that takes its colours and font from the page around it."""

from __future__ import annotations

import io
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import matplotlib as mpl
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, MaxNLocator

Axis = Literal["seconds", "bytes_seen"]
LABELS = {"seconds": "seconds", "bytes_seen": "bytes read"}

# Stand-ins that matplotlib can parse, and the page's CSS variables that take their place.
INK, GRID = "#010101", "#020202"
SERIES = ("#030301", "#030302", "#030303", "#030304", "#030305")
VARIABLES = {INK: "var(--muted)", GRID: "var(--line)"} | {
    colour: f"var(--series-{i})" for i, colour in enumerate(SERIES, 1)
}


@dataclass(frozen=True)
class Curve:
    """How one model learned; three sequences of equal length."""

    name: str
    seconds: Sequence[float]
    bytes_seen: Sequence[float]
    bits_per_byte: Sequence[float]

    def points(self, axis: Axis) -> list[tuple[float, float]]:
        """Finite (x, bits per byte) pairs."""
        pairs = zip(getattr(self, axis), self.bits_per_byte, strict=True)
        return [(x, y) for x, y in pairs if math.isfinite(x) and math.isfinite(y)]


def curves_svg(curves: Sequence[Curve], axis: Axis) -> str:
    """One ``<svg>`` element; curve i is drawn in ``var(--series-i)``, counted from 1."""
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": axis, "font.size": 10}):
        figure = Figure(figsize=(5.4, 3.3), layout="constrained")
        _draw(figure.subplots(), curves, axis)
        out = io.StringIO()
        figure.savefig(out, format="svg", transparent=True, metadata={"Date": None})
    svg = out.getvalue()
    svg = svg[svg.index("<svg") :]  # the XML prologue has no place inside HTML
    svg = re.sub(r'<g id="[^"]*"', "<g", svg)  # referred to by nobody, and the same in each figure
    for colour, variable in VARIABLES.items():
        svg = svg.replace(colour, variable)
    return svg


def _draw(axes: Any, curves: Sequence[Curve], axis: Axis) -> None:
    values: list[float] = []
    for i, curve in enumerate(curves):
        points = curve.points(axis)
        if not points:
            continue
        xs, ys = zip(*points, strict=True)
        values += ys[len(ys) // 20 :]  # the first steps would flatten all the rest
        marker = "o" if len(points) == 1 else ""
        axes.plot(xs, ys, color=SERIES[i % len(SERIES)], linewidth=1.6, marker=marker)
    if values:
        axes.set_ylim(*_limits(values))
    axes.set_xlabel(LABELS[axis], color=INK)
    axes.set_ylabel("bits per byte", color=INK)
    axes.xaxis.set_major_locator(MaxNLocator(6))
    if axis == "bytes_seen":
        axes.xaxis.set_major_formatter(EngFormatter(sep=""))
    axes.grid(axis="y", color=GRID, linewidth=0.8)
    axes.tick_params(colors=INK, length=0)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.spines["bottom"].set_color(GRID)


def _limits(values: list[float]) -> tuple[float, float]:
    low, high = min(values), max(values)
    margin = 0.05 * (high - low) or 0.1
    return low - margin, high + margin
