"""What ``blt eval`` shows: a table, JSON, or a figure."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from rich.table import Table
from rich.text import Text

from blt.errors import require
from blt.evals.compare import MODEL
from blt.evals.languages import RATIO
from blt.evals.rows import Row, name_of
from blt.report.colours import COLOURS
from blt.report.console import Console
from blt.report.pictures import save_picture
from blt.texts.printable import printable

FIGURES = (".png", ".svg", ".pdf")
RANGE = "95 %"  # over the columns of intervals, which spaces behind tell apart
WIDE = 1000  # characters
TINY = 0.0005  # of which three places would show nothing
GAP = 0.6  # between the bars of one name and the next, in bars


def print_table(rows: Iterable[Row]) -> list[Row]:
    """Numbers to three places, in columns; returns the rows as they were."""
    console = Console()
    with console.status("measuring") as status:
        found = []
        for row in rows:
            found.append(row)
            status.update(Text(f"measured {next(iter(row.values()))}"))
    found = grouped(found)
    shown = [_with_ranges(row) for row in found]
    columns = list(shown[0])
    numbers = {name for name in columns if not isinstance(shown[0][name], str)}
    table = Table(box=None, pad_edge=False)
    for name in columns:
        table.add_column(
            name.replace("_", " ").rstrip(), justify="right" if name in numbers else "left"
        )
    for row in shown:
        table.add_row(*(_shown(row[name]) for name in columns))
    if not console.is_terminal:  # a row is a line, however long
        console.width = WIDE
    console.print(table)
    return found


def _with_ranges(row: Row) -> Row:
    """The two ends of each interval in one column; ratios are left to --json."""
    found: Row = {}
    for name, value in row.items():
        if name.startswith("ratio"):
            continue
        if name == "low" or name.endswith("_low"):
            high = row[f"{name[:-3]}high"]
            known = value is not None and high is not None
            found[RANGE + " " * len(found)] = f"{value:.3f}..{high:.3f}" if known else None
        elif not (name == "high" or name.endswith("_high")):
            found[name] = value
    return found


def grouped(rows: Sequence[Row]) -> list[Row]:
    """Rows of several models with those of the same name together, in the order of the names."""
    names = list(dict.fromkeys(_name(row) for row in rows))
    return sorted(rows, key=lambda row: names.index(_name(row)))


def _name(row: Row) -> str:
    """What a row is about, whichever model it is of."""
    return name_of({key: value for key, value in row.items() if key != MODEL})


def print_json(rows: Iterable[Row]) -> list[Row]:
    """One JSON object on each line, as soon as it is known; returns the rows."""
    found = []
    for row in rows:
        print(json.dumps(row), flush=True)
        found.append(row)
    return found


def check_figure(path: Path) -> None:
    """Before anything is measured.

    Raises:
        UserError: a name or folder that no figure can be written to.
    """
    require(path.suffix in FIGURES, f"--plot {path}: must end in {', '.join(FIGURES)}")
    require(path.parent.is_dir(), f"--plot {path}: no such folder {path.parent}; make it first")


def draw(rows: Sequence[Row], columns: Sequence[str], path: Path) -> None:
    """A panel for each of ``columns`` that has numbers: bars for each row, coloured by model.

    Ratios of other rows are left out.
    """
    from matplotlib.figure import Figure  # late: it is slow to import
    from matplotlib.patches import Patch

    rows = grouped([row for row in rows if _name(row) != RATIO])
    columns = [n for n in columns if any(r.get(n) is not None for r in rows)]
    models = list(dict.fromkeys(row.get(MODEL, "") for row in rows))
    shade = dict(zip(models, itertools.cycle(COLOURS), strict=False))
    heights, ticks = _places([_name(row) for row in rows], GAP if len(models) > 1 else 0.0)
    size = (2.2 + 2.8 * len(columns), 0.8 + 0.24 * (len(rows) + len(models) * (len(models) > 1)))
    figure = Figure(figsize=size, layout="constrained")
    panels = figure.subplots(1, len(columns), sharey=True, squeeze=False)[0]
    for axes, name in zip(panels, columns, strict=True):
        values = [row.get(name) or 0.0 for row in rows]
        colours = [shade[row.get(MODEL, "")] for row in rows]
        bars = axes.barh(heights, values, color=colours, height=0.8)
        axes.bar_label(bars, [_shown(row.get(name)) for row in rows], padding=2, fontsize=7)
        axes.set_title(name.replace("_", " "), fontsize=10)
        axes.margins(x=0.18, y=0.5 / len(rows))
        axes.spines[["top", "right"]].set_visible(False)
        axes.tick_params(labelsize=8)
    panels[0].set_yticks(list(ticks.values()), [_label(name) for name in ticks])
    panels[0].invert_yaxis()
    if len(models) > 1:
        keys = [Patch(color=shade[model], label=_label(model)) for model in models]
        figure.legend(handles=keys, frameon=False, fontsize=8, loc="outside lower center")
    save_picture(figure, path)


def _places(names: Sequence[str], gap: float) -> tuple[list[float], dict[str, float]]:
    """Heights of bars, with a gap where the name changes; the middle of each name's bars."""
    heights: list[float] = []
    middles: dict[str, float] = {}
    start = 0.0
    for name, group in itertools.groupby(names):
        bars = [start + index for index, _ in enumerate(group)]
        heights += bars
        middles[name] = (bars[0] + bars[-1]) / 2
        start = bars[-1] + 1 + gap
    return heights, middles


def _label(name: str) -> str:
    """Text of a figure, in which dollars are no formula."""
    return printable(name).replace("$", r"\$")


def _shown(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.1e}" if 0 < abs(value) < TINY else f"{value:.3f}"
    return "" if value is None else str(value)
