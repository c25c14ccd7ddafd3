"""``blt byteify``: a byte model out of a token model, a table of both, and curves."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from tyro.conf import Positional

from blt.cli.device import RecipeDevice, changes_for
from blt.cli.output import say
from blt.report.colours import COLOURS
from blt.report.console import Console
from blt.report.pictures import save_picture

MODELS = ("byteified", "scratch")
FIGURE = "byteify.png"


def byteify(
    source: Positional[str],
    recipe: Positional[Path],
    overrides: Positional[tuple[str, ...]] = (),
    /,
    *,
    run: Path,
    resume: bool = False,
    scratch: bool = False,
    device: RecipeDevice = None,
) -> None:
    """Turn a token model into a byte model: a BLT whose global transformer begins as its layers.

    Then compares both on held-out text, in RUN/byteify.json and RUN/byteify.png.

    Args:
        source: Token model: a folder of blt train, or of transformers (Llama, Mistral, Qwen 2 and
            3, OLMo 2), or a hub id such as owner/name.
        recipe: TOML file with a section byteify, such as recipes/byteify.toml.
        overrides: Changes to the recipe, such as byteify.distill=0.5.
        run: Folder to make, for checkpoint and metrics.
        resume: Go on from the checkpoint in the run folder.
        scratch: Also train a BLT of the same shape from random weights, in RUN/scratch, and tell
            how much of its distance to the source is closed.
    """
    from blt.byteify import byteify as run_byteify
    from blt.report.progress import training_bar
    from blt.train.recipe import read_recipe

    changes = (*overrides, f"byteify.source={json.dumps(source)}", *changes_for(device))
    console = Console(quiet=os.environ.get("RANK", "0") != "0")
    result = run_byteify(
        read_recipe(recipe, changes),
        run,
        resume=resume,
        scratch=scratch,
        show=lambda name: training_bar(console, name),
    )
    if result is not None:
        show_result(result, run)


def show_result(result: dict[str, Any], folder: Path) -> None:
    """Print what was found, and draw the run in ``folder`` beside its source."""
    from blt.cli.eval_view import print_table

    shown = ("model", "bits_per_byte", "bytes_per_patch", "parameters", "training_bytes")
    print_table({name: row[name] for name in shown} for row in result["models"])
    share = result["gap_closed"]
    if share is not None:
        low, high = result["gap_closed_interval"]
        Console().print(
            f"{share:.1%} ({low:.1%} to {high:.1%}) of the gap between scratch and source closed"
        )
    say(draw(result, folder))


def draw(result: dict[str, Any], folder: Path) -> Path:
    """Write ``byteify.png`` into the run folder: a curve for each training, a line for the source.

    Returns:
        its path.
    """
    from matplotlib.figure import Figure
    from matplotlib.ticker import EngFormatter

    from blt.byteify import SCRATCH
    from blt.report.runs import read_run

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
    save_picture(figure, folder / FIGURE)
    return folder / FIGURE
