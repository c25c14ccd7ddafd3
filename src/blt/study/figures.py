"""What a study found, as pictures: bits over FLOPs and seconds, and the bowls of the search."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import (
    LogFormatter,
    LogFormatterSciNotation,
    LogLocator,
    NullFormatter,
    NullLocator,
)

from blt.report.colours import COLOURS
from blt.report.pictures import save_picture
from blt.study.cells import Compared
from blt.study.config import Family, short
from blt.study.fit import band, fit
from blt.study.lines import Line
from blt.study.search import bits_of

# Where there are more families than colours.
STYLES = (("-", "o"), ("--", "s"), (":", "^"), ("-.", "D"))
FLOPS, SECONDS = "flops", "seconds"
LABELS = {
    FLOPS: "training FLOPs, the patcher's training included",
    SECONDS: "seconds of training",
}


def write_figures(compared: Compared, folder: Path) -> list[Path]:
    """Bits per byte over FLOPs and over seconds, a panel for each kind of text; and bowls.

    Where there is one budget, or one size of each family, a figure of points is not drawn.
    """
    paths = []
    if len(compared.budgets) > 1:
        paths.append(_curves(compared, FLOPS, folder))
    if any(len(family.sizes) > 1 for family in compared.families):
        paths.append(_bowls(compared, folder / "bowls.png"))
    if compared.costs:
        paths.append(_curves(compared, SECONDS, folder))
    return paths


def panels(count: int) -> tuple[Figure, list[Any]]:
    """A figure of so many panels, three in a row."""
    columns = min(3, count)
    rows = math.ceil(count / columns)
    figure = Figure(figsize=(3.7 * columns + 2.6, 0.6 + 3.4 * rows), layout="constrained")
    every = list(figure.subplots(rows, columns, squeeze=False).flatten())
    for axes in every[count:]:
        axes.set_axis_off()
    for axes in every[:count]:
        axes.grid(axis="y", linewidth=0.5, alpha=0.5)
        axes.spines[["top", "right"]].set_visible(False)
    return figure, every[:count]


def legend(figure: Figure, axes_of: Sequence[Any]) -> None:
    """What the lines of all panels are, each once."""
    pairs = [zip(*reversed(axes.get_legend_handles_labels()), strict=True) for axes in axes_of]
    lines = {label: handle for of in pairs for label, handle in of}
    how: dict[str, Any] = {"frameon": False, "loc": "outside right upper", "fontsize": 8}
    figure.legend(lines.values(), lines.keys(), **how)


def _curves(compared: Compared, axis: str, folder: Path) -> Path:
    figure, axes_of = panels(len(compared.heldout))
    for axes, kind in zip(axes_of, compared.heldout, strict=True):
        for index, family in enumerate(compared.families):
            how = {**style(index), "label": family.name}
            _curve(axes, compared, family, kind, axis, how)
        axes.set_xscale("log")
        if axis == FLOPS:
            axes.set_xticks(compared.budgets, [short(b) for b in compared.budgets])
            axes.xaxis.set_minor_locator(NullLocator())
        else:
            axes.xaxis.set_major_formatter(LogFormatter())
            axes.xaxis.set_minor_formatter(LogFormatter(minor_thresholds=(1, 0.5)))
        axes.set_xlabel(LABELS[axis], fontsize=8)
        axes.set_ylabel("held-out bits per byte", fontsize=8)
        axes.set_title(kind, loc="left", fontsize=10)
    legend(figure, axes_of)
    path = folder / f"bits-over-{axis}.png"
    return save_picture(figure, path)


def _curve(
    axes: Any,
    compared: Compared,
    family: Family,
    kind: str,
    axis: str,
    how: dict[str, Any],
) -> None:
    budgets = [b for b in compared.budgets if (family.name, b) in compared.points]
    cells = [compared.cell(family.name, budget, kind) for budget in budgets]
    seconds = [compared.seconds(compared.points[family.name, b][0]) for b in budgets]
    flops = [family.spends * budget for budget in budgets]
    x = flops if axis == FLOPS else [math.nan if s is None else s for s in seconds]
    if all(map(math.isnan, x)):  # it would be in the legend, and nowhere else
        return
    y = [cell.value for cell in cells]
    errors = [[c.value - c.low for c in cells], [c.high - c.value for c in cells]]
    axes.errorbar(x, y, np.abs(errors), linewidth=1.3, capsize=2, **how)
    if axis == FLOPS and len(flops) > 3:  # through fewer points any law fits
        grid = np.geomspace(flops[0], flops[-1], 50)
        axes.plot(grid, fit(flops, y)(grid), color=how["color"], linewidth=0.7)
        low, high = band(flops, y, grid)
        axes.fill_between(grid, low, high, color=how["color"], alpha=0.1, linewidth=0)


def _bowls(compared: Compared, path: Path) -> Path:
    """Validation bits over FLOPs of a byte of training: a panel for each budget."""
    figure, axes_of = panels(len(compared.budgets))
    for axes, budget in zip(axes_of, compared.budgets, strict=True):
        for index, family in enumerate(compared.families):
            bowl = sorted(_bowl(compared, family, budget))
            if bowl:
                x, y = zip(*bowl, strict=True)
                axes.plot(x, y, linewidth=1.3, label=family.name, **style(index))
        axes.set_xscale("log")
        # A panel may lie between two powers of ten.
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.xaxis.set_major_formatter(LogFormatterSciNotation(minor_thresholds=(9, 9)))
        axes.xaxis.set_minor_formatter(NullFormatter())
        axes.set_xlabel("FLOPs of a byte of training, forward and backward", fontsize=8)
        axes.set_ylabel("validation bits per byte", fontsize=8)
        axes.set_title(f"{short(budget)} FLOPs", loc="left", fontsize=10)
    legend(figure, axes_of)
    return save_picture(figure, path)


def _bowl(compared: Compared, family: Family, budget: float) -> Iterator[tuple[float, float]]:
    """FLOPs per byte and validation bits of each size at its best rate."""
    lines = [
        line
        for line in compared.lines
        if (line["family"], line["budget"], line["seed"]) == (family.name, budget, 0)
    ]
    for size in {line["size"] for line in lines}:
        best = min(_of_size(lines, size), key=bits_of)
        own = best["flops"] - best.get("patcher_training_flops", 0.0)  # older lines do not say
        if math.isfinite(bits_of(best)):
            yield own / best["bytes_seen"], bits_of(best)


def _of_size(lines: Sequence[Line], size: int) -> list[Line]:
    return [line for line in lines if line["size"] == size]


def style(index: int) -> dict[str, Any]:
    """Of the lines of one family."""
    dashes, marker = STYLES[index // len(COLOURS) % len(STYLES)]
    return {"color": COLOURS[index % len(COLOURS)], "linestyle": dashes, "marker": marker} | {
        "markersize": 4
    }
