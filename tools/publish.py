"""Publish what a study found: its lines into results, its table and figures beside their page.

    python -m tools.publish recipes/study/noise.toml runs/noise

Into results/NAME go the files of lines, and runs.csv; into docs/results/NAME go table.md and the
figures, made anew. NAME is that of the study's folder. Weights, tokenizers and locks stay.
"""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path

from blt.errors import require
from blt.files import durable
from blt.study import read_study
from blt.study.folder import CHARACTERS, COSTS, EVALS, HELDOUT, OVERLAP, RECIPES, RESULTS, SCORES
from blt.study.report import write_report
from blt.study.tables import TABLE
from tools.asked import mistakes_end

LINES = (RESULTS, SCORES, EVALS, CHARACTERS, COSTS, RECIPES, HELDOUT, OVERLAP)
ROOT = Path(__file__).parents[1]


def publish(recipe: Path, folder: Path, root: Path) -> list[Path]:
    """Copy lines, and write the report of the copy; what has changed hands.

    Raises:
        UserError: no such study, or nothing in its folder yet.
    """
    study = read_study(recipe)
    require((folder / RESULTS).is_file(), f"{folder}: no {RESULTS} in it; name a study's folder")
    lines, page = root / "results" / folder.name, root / "docs" / "results" / folder.name
    written = []
    for name in LINES:
        if (folder / name).is_file():
            written.append(_copied(folder / name, lines))
    for path in write_report(study, lines):
        shown = path.name == TABLE or path.suffix == ".png"
        written.append(_moved(path, page) if shown else path)
    shutil.rmtree(lines / "locks", ignore_errors=True)
    return written


def _copied(path: Path, folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    with durable.beside(folder / path.name) as whole:
        shutil.copyfile(path, whole)
    return folder / path.name


def _moved(path: Path, folder: Path) -> Path:
    there = _copied(path, folder)
    if path.name != TABLE:  # tools/recompute reads it beside the lines
        path.unlink()
    return there


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tools.publish", description=__doc__)
    parser.add_argument("study", type=Path, help="its recipe, recipes/study/NAME.toml")
    parser.add_argument("folder", type=Path, help="where it ran")
    given = parser.parse_args()
    with mistakes_end():
        for path in publish(given.study, given.folder, ROOT):
            print(path.relative_to(ROOT))


if __name__ == "__main__":
    main()
