"""Train runs of a study again from scratch: do they come out as they were published?

    python -m tools.retrain recipes/study/tables-or-patches.toml results/tables-or-patches \\
        flat-tables-6e11-size0-lr0.032-s0 --times 2 --out runs/again > again.jsonl

Each time has a folder of its own in ``--out``, where its patcher and its tokenizer are made anew
too; a training that was stopped goes on there. A line for each says the validation bits of before
and now, and by how much the source that differs most does; one that gave up, before or now, has no
bits, and ``gave_up`` says which. With ``--score`` each is scored as the study scores what it
compares, and the line is added to the study's folder, where that has none of it: so a run that the
search did not choose can be looked at too. Exit status 1 where a mean differs by half of its third
digit behind the point, or by more, or where only one of the two gave up.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from blt.errors import UserError, require
from blt.study import Point, Study, read_study
from blt.study.folder import SCORES, StudyFolder
from blt.study.heldout import Heldout
from blt.study.lines import Line
from blt.study.scoring import score_line
from blt.study.timing import Clock
from blt.study.training import Training
from tools.asked import bare, mistakes_end, positive
from tools.lines import rounded

CLOSE = 0.0005  # bits per byte: half of the third digit


def published(study: Study, folder: Path, names: Sequence[str]) -> Iterator[tuple[Point, Line]]:
    """The points of runs, and their lines.

    Raises:
        UserError: there is no such line, or it is of none of the study's families.
    """
    families = {family.name: family for family in study.families}
    lines = {line["name"]: line for line in StudyFolder(folder).lines()}
    for name in names:
        line = lines.get(name, {})
        family = families.get(line.get("family", ""))
        if family is None:
            raise UserError(f"{folder}: has no run {name!r} of a family of {study.where}")
        where = (line["budget"], line["size"], line["lr"], line["seed"])
        yield study.point(family, *where), line


def trained(training: Training, point: Point) -> Line:
    """The line of a run that is trained in the folder of ``training``, after its patcher."""
    out = training.out
    for each in (*_patcher(training.study, point), point):
        if each.name not in {line["name"] for line in out.lines()}:
            training.train(each)
    return next(line for line in out.lines() if line["name"] == point.name)


def score_into(folder: StudyFolder, training: Training, point: Point, heldout: Heldout) -> None:
    """Add the scores of a run that was trained again, where the folder has none of it.

    Raises:
        UserError: another search has removed its weights since.
    """
    known = {line["name"] for line in folder.lines(SCORES)}
    if point.name not in known:
        there, where = training.has_weights(point), training.out.path
        require(there, f"{where}: the weights of {point.name} are gone; train into a new --out")
        model = training.model(point.name, point.recipe)
        folder.append(score_line(point, model, heldout), SCORES)


def _patcher(study: Study, point: Point) -> list[Point]:
    name = study.family(point.family).patcher
    return [] if name is None else [study.patcher_point(name, point.budget)]


def compared(before: Line, now: Line, time: int) -> dict[str, Any]:
    """What is said of one training."""
    known = [(bits, now["validation"].get(of)) for of, bits in before["validation"].items()]
    apart = [abs(a - b) for a, b in known if a is not None and b is not None]
    ended = {"published": before["validation_bits"], "again": now["validation_bits"]}
    gave_up = [which for which, bits in ended.items() if bits is None]
    return {
        "name": before["name"],
        "time": time,
        **ended,
        "source_apart": max(apart, default=None),
        "bytes_seen": now["bytes_seen"],
        **({"gave_up": gave_up} if gave_up else {}),
    }


def came_out_alike(line: Line) -> bool:
    """Is a training, as of :func:`compared`, close to what was published, or did both give up?"""
    before, now = line["published"], line["again"]
    if before is None or now is None:
        return before is now
    return bool(abs(before - now) < CLOSE)


def measure(given: argparse.Namespace) -> bool:
    """Train all; does each come out as before?"""
    study = read_study(given.study)
    runs, close = list(published(study, given.folder, given.runs)), True
    folder, heldout = StudyFolder(given.folder), Heldout.read(study) if given.score else None
    if heldout is not None:
        folder.check_heldout(heldout.facts)
    for time in range(1, given.times + 1):
        out = StudyFolder(given.out / str(time))
        out.make()
        training = Training(study, out, Clock(None), None)  # opens the text once
        for point, before in runs:
            line = compared(before, trained(training, point), time)
            close = came_out_alike(line) and close
            print(json.dumps(rounded(line)), flush=True)
            if heldout is not None:
                score_into(folder, training, point, heldout)
    return close


def main(words: Sequence[str] | None = None) -> None:
    asked = bare("tools.retrain", __doc__)
    asked.add_argument("study", help="its recipe")
    asked.add_argument("folder", type=Path, help="where its lines are")
    asked.add_argument("runs", nargs="+", metavar="RUN", help="a name from results.jsonl")
    asked.add_argument("--out", type=Path, required=True, help="trainings go there")
    asked.add_argument("--times", type=positive, default=1, help="how often each is trained")
    score = "score them, and add the lines to FOLDER where it has none"
    asked.add_argument("--score", action="store_true", help=score)
    with mistakes_end():
        close = measure(asked.parse_args(words))
    sys.exit(0 if close else 1)


if __name__ == "__main__":
    main()
