"""``blt study``: a grid of trainings at equal FLOPs, with a bar for each."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from tyro.conf import Positional

from blt.cli.device import RecipeDevice, changes_for
from blt.cli.output import say
from blt.report.console import Console

if TYPE_CHECKING:
    from blt.study.config import Point
    from blt.study.run import OnPoint
    from blt.train.loop import OnProgress


def study(
    file: Positional[Path],
    /,
    *,
    out: Path | None = None,
    figures: bool = False,
    device: RecipeDevice = None,
) -> None:
    """Train a grid of models at equal FLOPs, score them, and draw what comes out.

    Run again after a kill, it goes on where it was.

    Args:
        file: TOML file of the study; docs/study.md shows one.
        out: Folder to make or to go on in. Left out: runs/FILE.
        figures: Train nothing: draw what is there.
    """
    from blt.study import read_results, read_study, run_study
    from blt.study.figures import write_figures

    folder = out or Path("runs") / file.stem
    made = read_study(file, changes_for(device))
    if not figures:
        with points(Console()) as show:
            run_study(made, folder, on_point=show)
    for path in write_figures(read_results(folder), folder):
        say(path)


@contextmanager
def points(console: Console) -> Iterator[OnPoint]:
    """What :func:`blt.study.run_study` calls before each run, inside a ``with`` block."""
    from blt.report.progress import training_bar

    with ExitStack() as bars:

        def show(point: Point, number: int, count: int) -> OnProgress:
            bars.close()  # of the run before
            console.print(f"run {number} of {count}: {point.name}", highlight=False, markup=False)
            return bars.enter_context(training_bar(console, point.family))

        yield show
