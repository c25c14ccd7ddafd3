"""``blt study``: families of models compared at equal FLOPs, with a bar for each run."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from tyro.conf import Positional

from blt.cli.device import RecipeDevice, changes_for
from blt.cli.output import say
from blt.errors import require
from blt.report.console import Console

if TYPE_CHECKING:
    from blt.study import Study
    from blt.study.training import OnPoint
    from blt.train.loop import OnProgress


def study(
    file: Positional[Path],
    /,
    *,
    out: Path | None = None,
    figures: bool = False,
    characters: Path | None = None,
    minutes: float | None = None,
    until: float | None = None,
    families: tuple[str, ...] = (),
    device: RecipeDevice = None,
) -> None:
    """Search, train, score and draw families of models at equal FLOPs.

    Run again after a kill, it goes on where it was.

    Args:
        file: TOML file of the study; docs/study.md shows one.
        out: Folder to make or to go on in. Left out: runs/FILE.
        figures: Train nothing: draw what is there.
        characters: Train nothing of the study: teach the models that are compared by now to answer
            questions about the letters of words, as the [[characters]] of this TOML file say.
        minutes: Begin no training that would take longer, all together, and ask and time nothing
            after so many; the last sixth is for scoring.
        until: Run no budget above this one, in FLOPs; what was compared is then asked and timed.
        families: Work on these families alone, as if the study had no others. Their larger budgets
            need not wait for the others then.
    """
    from blt.study import read_study, run_study
    from blt.study.folder import StudyFolder

    given: dict[str, object] = {
        "--minutes": minutes,
        "--until": until,
        "--families": families or None,
        "--characters": characters,
    }
    idle = [name for name, value in given.items() if value is not None]
    require(not (figures and idle), f"--figures runs nothing: leave out {' and '.join(idle)}")
    folder = out or Path("runs") / file.stem
    made = read_study(file, changes_for(device), characters)
    asked = made if until is None else made.until(until)
    if not figures:
        with runs(Console()) as show:
            seconds, alone = None if minutes is None else 60 * minutes, characters is not None
            run_study(
                asked,
                folder,
                seconds=seconds,
                families=families,
                only_characters=alone,
                on_point=show,
            )
    with StudyFolder(folder).drawing():
        paths = _written(made, folder)
    for path in paths:
        say(path)


def _written(made: Study, folder: Path) -> list[Path]:
    """Tables and figures; tables alone on a bare machine, which can run studies too."""
    if find_spec("matplotlib") is None:
        from blt.study.tables import write_tables

        say("no figures: they need matplotlib; draw them elsewhere, with --figures")
        return write_tables(made, folder)
    from blt.study.report import write_report

    return write_report(made, folder)


@contextmanager
def runs(console: Console) -> Iterator[OnPoint]:
    """What :func:`blt.study.run_study` calls before each run, inside a ``with`` block."""
    from blt.report.progress import training_bar

    with ExitStack() as bars:

        def show(name: str) -> OnProgress:
            bars.close()  # of the run before
            console.print(name, highlight=False, markup=False)
            return bars.enter_context(training_bar(console, name))

        yield show
