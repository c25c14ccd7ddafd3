"""What ``blt prepare`` shows: a bar over source files, and what was made of them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from blt.data.heldout import split_remarks
from blt.data.left_out import Tally
from blt.data.prepare import OnProgress, Outcome
from blt.views.console import Console


@contextmanager
def preparing() -> Iterator[OnProgress]:
    """What :func:`blt.data.prepare.prepare` calls with its progress, inside a ``with`` block."""
    columns = (
        TextColumn("[bold]preparing"),
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        TextColumn("files · {task.fields[megabytes]:.1f} MB · {task.fields[broken]} broken lines"),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), refresh_per_second=4) as progress:
        task = progress.add_task("", total=None, megabytes=0.0, broken=0)
        finished, size, broken = 0, 0, 0  # size and broken lines of finished units

        def show(done: int, total: int, outcome: Outcome) -> None:
            nonlocal finished, size, broken
            megabytes = (size + outcome.bytes) / 1e6
            if done > finished:
                finished, size, broken = done, size + outcome.bytes, broken + outcome.broken
            progress.update(task, completed=done, total=total, megabytes=megabytes, broken=broken)

        yield show


def print_manifest(folder: Path, manifest: dict[str, Any]) -> None:
    """Counts, the first broken lines, and what to do next."""
    console = Console()
    shown: dict[str, Any] = {"soft_wrap": True, "highlight": False, "markup": False}
    train, heldout = manifest["splits"]["train"], manifest["splits"]["heldout"]
    console.print(
        f"{folder}: {manifest['documents']:,} documents, {manifest['bytes'] / 1e6:,.1f} MB, "
        f"{len(manifest['shards'])} shards; {train['bytes'] / 1e6:,.1f} MB to train on, "
        f"{heldout['bytes'] / 1e6:,.1f} MB held out",
        **shown,
    )
    if manifest["broken"]:
        console.print(f"{manifest['broken']:,} lines without a document were left out:", **shown)
        lines = [line for unit in manifest["units"] for line in unit["broken_lines"]]
        for line in lines[:5]:
            console.print(f"  {line}", **shown)
    for what in ("left_out", "read_as_one_text"):
        tally = Tally()
        tally.add_facts(manifest[what])
        if tally:
            console.print(f"{what.replace('_', ' ')}: {tally}", **shown)
    for remark in split_remarks(str(folder), manifest["cut_documents"], heldout["bytes"]):
        console.print(remark, **shown)
    if not heldout["bytes"]:
        console.print("nothing is held out: raise --heldout to evaluate while training", **shown)
    console.print(f"next: blt train RECIPE.toml 'data.sources=[\"{folder}\"]'", **shown)
