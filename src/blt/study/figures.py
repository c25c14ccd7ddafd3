"""What a study found: figures, and a table in Markdown."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from blt.errors import UserError
from blt.study.fit import band, fit

MEAN = "mean"  # of all kinds of held-out text
COLOURS = ("#0b6e99", "#d1495b", "#3a7d44", "#8d5a97", "#c77d0a", "#4a4e69", "#00798c", "#9a031e")
LABELS = {"flops": "training FLOPs, the entropy model's included", "seconds": "seconds of training"}


def write_figures(results: Sequence[dict[str, Any]], folder: Path) -> list[Path]:
    """Bits per byte over FLOPs and over time, and ``table.md``, into ``folder``.

    Raises:
        UserError: there are no results yet.
    """
    if not results:
        raise UserError(f"{folder}: no run has ended yet; wait, or start the study")
    folder.mkdir(parents=True, exist_ok=True)
    paths = [_figure(results, axis, folder / f"bits-over-{axis}.png") for axis in LABELS]
    (folder / "table.md").write_text(table(results))
    return [*paths, folder / "table.md"]


def score(result: dict[str, Any], kind: str = MEAN) -> float:
    """Bits per byte of one kind of text, or the mean over kinds."""
    scores = result["bits_per_byte"]
    return float(np.mean(list(scores.values()))) if kind == MEAN else float(scores[kind])


def families(results: Sequence[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    """Results of each family, in the order in which families appear."""
    found: dict[str, list[dict[str, Any]]] = {}
    for result in results:
        found.setdefault(result["family"], []).append(result)
    return found


def table(results: Sequence[dict[str, Any]]) -> str:
    """Mean over kinds and seeds, ± the standard deviation over seeds where there are several."""
    budgets = sorted({result["budget"] for result in results})
    head = "| family | " + " | ".join(f"{budget:g} FLOPs" for budget in budgets) + " |"
    lines = [head, "|---|" + "---|" * len(budgets)]
    best = {budget: min(_at(results, budget), default=math.nan) for budget in budgets}
    for name, rows in families(results).items():
        cells = (_cell(_at(rows, budget), best[budget]) for budget in budgets)
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def _at(results: Sequence[dict[str, Any]], budget: float) -> list[float]:
    return [score(result) for result in results if result["budget"] == budget]


def _cell(values: list[float], best: float) -> str:
    if not values:
        return ""
    text = f"{np.mean(values):.3f}"
    if len(values) > 1:
        text += f" ± {np.std(values, ddof=1):.3f}"
    return f"**{text}**" if best in values else text


def _figure(results: Sequence[dict[str, Any]], axis: str, path: Path) -> Path:
    from matplotlib.figure import Figure  # late: it is slow to import

    figure = Figure(figsize=(7.2, 4.6), layout="constrained")
    axes = figure.subplots()
    for colour, (name, rows) in zip(_cycle(len(results)), families(results).items(), strict=False):
        x = [row[axis] for row in rows]
        y = [score(row) for row in rows]
        axes.scatter(x, y, s=14, color=colour, alpha=0.6, linewidths=0)
        at = [row["budget"] for row in rows]
        if axis == "flops" and len(set(at)) > 1:
            grid = np.geomspace(min(x), max(x), 50)
            axes.plot(grid, fit(at, y)(grid), color=colour, linewidth=1.6, label=name)
            axes.fill_between(grid, *band(at, y, grid), color=colour, alpha=0.12, linewidth=0)
        else:
            means = sorted((np.mean(a), np.mean(b)) for a, b in _by_budget(rows, axis))
            axes.plot(*zip(*means, strict=True), color=colour, linewidth=1.6, label=name)
    axes.set_xscale("log")
    axes.set_xlabel(LABELS[axis])
    axes.set_ylabel("held-out bits per byte, mean over kinds of text")
    axes.grid(axis="y", linewidth=0.5, alpha=0.5)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, fontsize=9)
    figure.savefig(path, dpi=150)
    return path


def _by_budget(rows: Sequence[dict[str, Any]], axis: str) -> list[tuple[list[float], list[float]]]:
    budgets = sorted({row["budget"] for row in rows})
    groups = [[row for row in rows if row["budget"] == budget] for budget in budgets]
    return [([row[axis] for row in group], [score(row) for row in group]) for group in groups]


def _cycle(count: int) -> list[str]:
    return [COLOURS[i % len(COLOURS)] for i in range(count)]
