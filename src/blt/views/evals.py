"""What ``blt eval`` shows: a table, JSON, or a figure."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from blt.errors import require

Row = dict[str, Any]
COLOUR = "#0b6e99"
FIGURES = (".png", ".svg", ".pdf")


def print_table(rows: Iterable[Row]) -> list[Row]:
    """Numbers to three places, in columns; returns the rows."""
    console = Console()
    with console.status("measuring") as status:
        found = []
        for row in rows:
            found.append(row)
            status.update(f"measured {next(iter(row.values()))}")
    columns = list(found[0])
    numbers = {name for name in columns if not isinstance(found[0][name], str)}
    table = Table(box=None, pad_edge=False)
    for name in columns:
        table.add_column(name.replace("_", " "), justify="right" if name in numbers else "left")
    for row in found:
        table.add_row(*(_shown(row[name]) for name in columns))
    console.print(table)
    return found


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
    """Bars for each row, a panel for each of ``columns`` that has numbers."""
    from matplotlib.figure import Figure  # late: it is slow to import

    columns = [name for name in columns if any(row.get(name) is not None for row in rows)]
    labels = [" ".join(str(v) for v in row.values() if isinstance(v, str)) for row in rows]
    size = (2.2 + 2.8 * len(columns), 0.8 + 0.24 * len(rows))
    figure = Figure(figsize=size, layout="constrained")
    panels = figure.subplots(1, len(columns), sharey=True, squeeze=False)[0]
    for axes, name in zip(panels, columns, strict=True):
        values = [row.get(name) or 0.0 for row in rows]
        bars = axes.barh(labels, values, color=COLOUR, height=0.7)
        axes.bar_label(bars, [_shown(row.get(name)) for row in rows], padding=2, fontsize=7)
        axes.set_title(name.replace("_", " "), fontsize=10)
        axes.margins(x=0.18)
        axes.spines[["top", "right"]].set_visible(False)
        axes.tick_params(labelsize=8)
    panels[0].invert_yaxis()
    figure.savefig(path, dpi=150)


def _shown(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.3f}"
    return "" if value is None else str(value)
