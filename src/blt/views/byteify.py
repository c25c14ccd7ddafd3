"""What ``blt byteify`` shows: a table, and held-out bits per byte over training bytes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from blt.byteify import SCRATCH
from blt.views.colours import COLOURS
from blt.views.console import Console, say
from blt.views.evals import print_table
from blt.views.report import read_run

MODELS = ("byteified", "scratch")
FIGURE = "byteify.png"


def show_result(result: dict[str, Any], folder: Path) -> None:
    """Print what was found, and draw the run in ``folder`` beside its source."""
    shown = ("model", "bits_per_byte", "bytes_per_patch", "parameters", "training_bytes")
    print_table({name: row[name] for name in shown} for row in result["models"])
    share = result["gap_closed"]
    if share is not None:
        Console().print(f"{share:.1%} of the gap between scratch and source closed")
    say(draw(result, folder))


def draw(result: dict[str, Any], folder: Path) -> Path:
    """Write ``byteify.png`` into the run folder: a curve for each training, a line for the source.

    Returns:
        its path.
    """
    from matplotlib.figure import Figure  # late: it is slow to import
    from matplotlib.ticker import EngFormatter

    figure = Figure(figsize=(5.4, 3.6), layout="constrained")
    axes = figure.subplots()
    rows = {row["model"]: row for row in result["models"]}
    for name, colour in zip(MODELS, COLOURS, strict=False):
        if name in rows:
            reports = read_run(folder / SCRATCH if name == "scratch" else folder, name).scored
            points = [(r["bytes_seen"], r["heldout_bits_per_byte"]) for r in reports]
            axes.plot(*zip(*points, strict=True), marker="o", ms=3, color=colour, label=name)
    axes.axhline(rows["source"]["bits_per_byte"], color="#555555", linestyle="--", label="source")
    axes.set_xlabel("training bytes")
    axes.set_ylabel("held-out bits per byte")
    axes.xaxis.set_major_formatter(EngFormatter(sep=""))
    axes.grid(axis="y", linewidth=0.5, alpha=0.5)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False)
    figure.savefig(folder / FIGURE, dpi=150)
    return folder / FIGURE
