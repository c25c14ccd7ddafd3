"""What ``blt eval`` prints: a table, or JSON."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from rich.console import Console
from rich.table import Table

Row = dict[str, Any]


def print_table(rows: Iterable[Row]) -> None:
    """Numbers to three places, in columns."""
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


def print_json(rows: Iterable[Row]) -> None:
    """One JSON object on each line, as soon as it is known."""
    for row in rows:
        print(json.dumps(row), flush=True)


def _shown(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.3f}"
    return "" if value is None else str(value)
