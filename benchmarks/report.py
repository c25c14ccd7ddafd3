"""What a benchmark tells: tables on the terminal, results as JSON."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from rich.table import Table

from blt.errors import UserError
from blt.files.durable import write_json
from blt.report.console import Console

Results = dict[str, Any]


def report(
    collect: Callable[[Console], Results],
    show: Callable[[Results, Console], None],
    file: Path | None,
    as_json: bool,
) -> Results:
    """Measure, and print tables, JSON or both.

    Args:
        collect: measures, and says on the console what it is at.
        show: prints the results as tables.
        file: also write JSON here.
        as_json: print JSON, unless there is a file, and the tables to standard error.
    """
    console = Console(stderr=as_json and file is None)
    results = collect(console)
    write(file, results)  # before they are shown: an error there must not lose hours of work
    if as_json and file is None:
        print(json.dumps(results, indent=2))
    show(results, console)
    return results


def check_output(file: Path | None) -> None:
    """Fail before hours of work, not after."""
    if file is not None and not file.absolute().parent.is_dir():
        raise UserError(f"{file}: its folder does not exist; make it first")
    if file is not None and file.is_dir():
        raise UserError(f"{file}: is a folder; name a file in it")


def write(file: Path | None, results: Results) -> None:
    """Write the results as JSON, if there is a file."""
    if file is not None:
        write_json(file, results)


def earlier(file: Path | None) -> Results:
    """The results that are in a file already, to which others are added."""
    found: Results = json.loads(file.read_text()) if file and file.exists() else {}
    return found


def print_table(
    console: Console,
    columns: Sequence[str],
    rows: Iterable[Sequence[str]],
    title: str | None = None,
) -> None:
    """A table of cells; all columns but the first, which names the row, are aligned right."""
    table = Table(title=title)
    for number, column in enumerate(columns):
        table.add_column(column, justify="right" if number else "left")
    for row in rows:
        table.add_row(*row)
    console.print(table)
