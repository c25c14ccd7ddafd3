"""What ``blt patch`` shows: the text in patches, how surprising each was, and the sums."""

from __future__ import annotations

import json
import math

from rich.table import Table

from blt.patching import Cut
from blt.patching.rules import describe
from blt.views.console import Console
from blt.views.terminal import legend, print_patches, render_patches, summary_line

MOST_ROWS = 40  # patches listed one by one; --json has them all


def print_json(cut: Cut) -> None:
    """One JSON object on one line."""
    print(json.dumps(cut.to_json()))


def print_cut(cut: Cut) -> None:
    """Print to a terminal with colours, or to a pipe with separators."""
    console = Console()
    print_patches(console, cut.patches, cut.entropies, colour_by="entropy")
    if cut.entropies is not None:
        if console.color_system is not None:
            console.print(legend())
        _print_rows(console, cut, cut.entropies)
    console.print(summary_line(cut.patches, cut.entropies), soft_wrap=True, highlight=False)
    console.print(f"rule: {describe(cut.config)}", soft_wrap=True, highlight=False)


def _print_rows(console: Console, cut: Cut, entropies: list[float]) -> None:
    if not cut.lengths:
        return
    table = Table("bytes", "nats", "bits", "patch", box=None, pad_edge=False)
    rows = list(zip(cut.starts, cut.patches, strict=True))
    for start, patch in rows[:MOST_ROWS]:
        nats = entropies[start]
        shown = render_patches([patch], colour=False)
        shown.plain = shown.plain.replace("\n", "")  # its mark ⏎ says it
        table.add_row(str(len(patch)), f"{nats:.3f}", f"{nats / math.log(2):.2f}", shown)
    console.print(table)
    if len(rows) > MOST_ROWS:
        console.print(f"… and {len(rows) - MOST_ROWS} more patches (--json lists all)")
