"""What a study found: figures, and a table in Markdown."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator

from blt.errors import UserError
from blt.files import durable
from blt.report.colours import COLOURS
from blt.study.fit import band, crossings, fit
from blt.study.folder import StudyFolder, overrun

MEAN = "mean"  # of all kinds of held-out text
STYLES = (("-", "o"), ("--", "s"), (":", "^"))  # where there are more families than colours
FLOPS, SECONDS, INFERENCE = "flops", "seconds", "inference_flops_per_byte"
TABLE = "table.md"
LABELS = {
    FLOPS: "training FLOPs, the entropy model's included",
    SECONDS: "seconds of training",
}


def write_figures(results: Sequence[dict[str, Any]], folder: Path) -> list[Path]:
    """Bits per byte over FLOPs and over time, and ``table.md``, into ``folder``.

    Raises:
        UserError: there are no results yet.
    """
    if not results:
        raise UserError(f"{folder}: no run has ended yet; wait, or start the study")
    folder.mkdir(parents=True, exist_ok=True)
    kinds = list(results[0]["bits_per_byte"])
    if len({result["budget"] for result in results}) == 1:
        paths = [_dots(results, folder / "bits-by-family.png")]
    else:
        paths = [
            *(_figure(results, axis, [MEAN], folder / f"bits-over-{axis}.png") for axis in LABELS),
            _figure(results, FLOPS, kinds, folder / "bits-over-flops-by-kind.png"),
        ]
    sections = [*_sections(results, kinds), *_scored_section(folder)]
    durable.write_text(folder / TABLE, "\n".join(sections))
    return [*paths, folder / TABLE]


def _sections(results: Sequence[dict[str, Any]], kinds: Sequence[str]) -> Iterator[str]:
    """The text of ``table.md``."""
    yield "# Numbers\n"
    for kind in (MEAN, *kinds):
        yield f"## Bits per byte, {kind}\n\n{table(results, kind)}"
    if all(INFERENCE in result for result in results):
        yield f"## Inference, millions of FLOPs per byte\n\n{inference_table(results)}"
    if lines := list(_over_rows(results)):
        head = "| run | times its budget of FLOPs |\n|---|---|\n"
        yield f"## Runs that took more than their budget\n\n{head}" + "\n".join(lines) + "\n"
    if lines := list(_crossing_rows(results)):
        head = "| family | falls below | at training FLOPs |\n|---|---|---|\n"
        title = "## Where fitted curves of the mean cross, within what was trained"
        yield f"{title}\n\n{head}" + "\n".join(lines) + "\n"


def _scored_section(folder: Path) -> Iterator[str]:
    """How much of each kind of text stands behind the numbers."""
    if scored := StudyFolder(folder).scored():
        lines = [
            f"| {kind} | {of['documents']} of {of['of_documents']} | "
            f"{of['bytes']:,} of {of['of_bytes']:,} |"
            for kind, of in scored.items()
        ]
        head = "| kind of text | documents scored | bytes scored |\n|---|---|---|\n"
        yield f"## What was scored\n\n{head}" + "\n".join(lines) + "\n"


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


def table(results: Sequence[dict[str, Any]], kind: str = MEAN) -> str:
    """Mean over seeds, ± the standard deviation where there are several."""
    budgets = sorted({result["budget"] for result in results})
    of_all = [np.mean(_at(rows, b, kind)) for rows in families(results).values() for b in budgets]
    best = dict(zip(budgets, np.nanmin(np.reshape(of_all, (-1, len(budgets))), 0), strict=True))
    return _table(results, lambda rows, budget: _cell(_at(rows, budget, kind), best[budget]))


def inference_table(results: Sequence[dict[str, Any]]) -> str:
    """Forward FLOPs per byte of training text, the entropy model's included, in millions."""

    def cell(rows: Sequence[dict[str, Any]], budget: float) -> str:
        values = [row[INFERENCE] / 1e6 for row in rows if row["budget"] == budget]
        return f"{np.mean(values):.3f}" if values else ""

    return _table(results, cell)


def _table(
    results: Sequence[dict[str, Any]], cell: Callable[[Sequence[dict[str, Any]], float], str]
) -> str:
    """A row for each family, a column for each budget."""
    budgets = sorted({result["budget"] for result in results})
    head = "| family | " + " | ".join(f"{budget:g} FLOPs" for budget in budgets) + " |"
    lines = [head, "|---|" + "---|" * len(budgets)]
    for name, rows in families(results).items():
        lines.append(f"| {name} | " + " | ".join(cell(rows, b) for b in budgets) + " |")
    return "\n".join(lines) + "\n"


def _over_rows(results: Sequence[dict[str, Any]]) -> Iterator[str]:
    for result in results:
        if times := overrun(result):
            yield f"| {result['name']} | {times:.2f} |"


def _crossing_rows(results: Sequence[dict[str, Any]]) -> Iterator[str]:
    """Crossings of families with enough budgets, each pair within the budgets that both have."""
    laws, ranges = {}, {}
    for name, rows in families(results).items():
        at = [row["budget"] for row in rows]
        if len(set(at)) > 2:  # a straight line through two points says little
            laws[name], ranges[name] = fit(at, [score(row) for row in rows]), (min(at), max(at))
    for (one, law), (other, other_law) in itertools.permutations(laws.items(), 2):
        low = max(ranges[one][0], ranges[other][0])
        high = min(ranges[one][1], ranges[other][1])
        for flops in crossings(law, other_law, low, high) if low < high else ():
            yield f"| {one} | {other} | {flops:.2g} |"


def _at(results: Sequence[dict[str, Any]], budget: float, kind: str) -> list[float]:
    return [score(result, kind) for result in results if result["budget"] == budget] or [math.nan]


def _cell(values: list[float], best: float) -> str:
    mean = np.mean(values)
    if math.isnan(mean):
        return ""
    text = f"{mean:.3f}"
    if len(values) > 1:
        text += f" ± {np.std(values, ddof=1):.3f}"
    return f"**{text}**" if mean == best else text


def _figure(results: Sequence[dict[str, Any]], axis: str, kinds: Sequence[str], path: Path) -> Path:
    """One panel for each kind of text."""
    columns = min(2, len(kinds))
    rows = math.ceil(len(kinds) / columns)
    figure = Figure(figsize=(3.6 * (columns + 1), 0.6 + 3.6 * rows), layout="constrained")
    panels = figure.subplots(rows, columns, squeeze=False).flatten()
    for axes, kind in zip(panels, kinds, strict=False):
        _panel(axes, results, axis, kind)
    for axes in panels[len(kinds) :]:
        axes.set_axis_off()
    figure.legend(*panels[0].get_legend_handles_labels(), frameon=False, loc="outside right upper")
    figure.savefig(path, dpi=150)
    return path


def _panel(axes: Any, results: Sequence[dict[str, Any]], axis: str, kind: str) -> None:
    found = families(results)
    for index, (name, rows) in enumerate(found.items()):
        colour = COLOURS[index % len(COLOURS)]
        dashes, marker = STYLES[index // len(COLOURS) % len(STYLES)]
        line = {"color": colour, "linestyle": dashes, "linewidth": 1.6, "label": name}
        x = [row[axis] for row in rows]
        y = [score(row, kind) for row in rows]
        axes.scatter(x, y, s=14, color=colour, marker=marker, alpha=0.6, linewidths=0)
        at = [row["budget"] for row in rows]
        if axis == FLOPS and len(set(at)) > 2:  # through two points any law fits
            grid = np.geomspace(min(x), max(x), 50)
            axes.plot(grid, fit(at, y)(grid), **line)
            axes.fill_between(grid, *band(at, y, grid), color=colour, alpha=0.12, linewidth=0)
        else:
            means = sorted(_mean_points(rows, axis, kind))
            axes.plot(*zip(*means, strict=True), **line)
    axes.set_xscale("log")
    if axis == FLOPS:
        budgets = sorted({result["budget"] for result in results})
        axes.set_xticks(budgets, [f"{budget:g}".replace("+", "") for budget in budgets])
        axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xlabel(LABELS[axis])
    axes.set_ylabel("held-out bits per byte" + (", mean of kinds" if kind == MEAN else ""))
    axes.set_title("" if kind == MEAN else kind, loc="left", fontsize=10)
    axes.grid(axis="y", linewidth=0.5, alpha=0.5)
    axes.spines[["top", "right"]].set_visible(False)


def _mean_points(
    rows: Sequence[dict[str, Any]], axis: str, kind: str
) -> Iterator[tuple[float, float]]:
    for budget in {row["budget"] for row in rows}:
        group = [row for row in rows if row["budget"] == budget]
        yield (
            float(np.mean([row[axis] for row in group])),
            float(np.mean([score(row, kind) for row in group])),
        )


def _dots(results: Sequence[dict[str, Any]], path: Path) -> Path:
    """Where all runs had one budget: a row for each family, a dot for each seed."""
    found = families(results)
    means = {name: float(np.mean([score(row) for row in rows])) for name, rows in found.items()}
    order = sorted(found, key=lambda name: -means[name])
    figure = Figure(figsize=(8, 1 + 0.28 * len(order)), layout="constrained")
    axes = figure.subplots()
    axes.axvline(means[next(iter(found))], color=COLOURS[1], linewidth=1, alpha=0.6)
    for height, name in enumerate(order):
        scores = [score(row) for row in found[name]]
        axes.scatter(
            scores, [height] * len(scores), s=22, color=COLOURS[0], alpha=0.5, linewidths=0
        )
        axes.scatter([means[name]], [height], s=90, marker="|", color=COLOURS[0])
    axes.set_yticks(range(len(order)), order)
    axes.set_xlabel(f"held-out bits per byte, mean of kinds; the line: {next(iter(found))}")
    axes.grid(axis="x", linewidth=0.5, alpha=0.5)
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=150)
    return path
