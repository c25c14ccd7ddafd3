"""What a study keeps on disk, shared by all processes that work on it."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import BaseFileLock, FileLock, Timeout

from blt.errors import UserError
from blt.files import durable
from blt.files.configs import from_dict, to_dict
from blt.files.schema import Amount, Count, Schema
from blt.files.strict_json import parse_object
from blt.study.config import Point, Study
from blt.train.recipe import Recipe, differences, read_recipe
from blt.train.run import RECIPE

RESULTS, SEARCH, RUNS = "results.jsonl", "search.jsonl", "runs"
SUPERSEDED = "superseded.jsonl"  # lines of runs that a longer search has bettered
OVERLAP, PLAN, LOCKS = "overlap.json", "plan.json", "locks"
SCORED = "scored.json"  # how much of each kind of held-out text
MACHINES = ("train.precision", "train.device")  # how a machine computes, maybe another one by now
OVER = 1.05  # times its budget of FLOPs: a run that takes more is named
WAY_OUT = "restore it, or choose another folder"
Result = dict[str, Any]


class Line(Schema):
    """What every line of results has."""

    name: str
    family: str
    budget: Amount
    seed: Count | None = None
    lr: Amount
    heldout_bits_per_byte: Amount | None = None


def overrun(result: Result) -> float | None:
    """Times its budget of FLOPs, where a run took clearly more."""
    times = float(result["flops"] / result["budget"])
    return times if times > OVER else None


class StudyFolder:
    """Results of a study, its plan, and who works on what.

    A process that dies gives back what it has claimed: the locks are the operating system's.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)

    def run(self, name: str) -> Path:
        """Where a run lies."""
        return self.path / RUNS / name

    def begin(
        self,
        study: Study,
        overlap: Callable[[], dict[str, float]],
        scored: dict[str, dict[str, int]],
    ) -> None:
        """Write down what is to be done, or check that the folder belongs to the same study.

        Args:
            overlap: computes what ``overlap.json`` holds; called where it is not there yet.
            scored: documents and bytes of each kind of held-out text, and how many there are.

        Raises:
            UserError: the study has changed since the folder was made; names what.
        """
        for name in (RUNS, LOCKS):
            (self.path / name).mkdir(parents=True, exist_ok=True)
        with self._lock("folder"):
            self._check_plan(study)
            if not (self.path / OVERLAP).is_file():
                durable.write_json(self.path / OVERLAP, overlap())
            durable.write_json(self.path / SCORED, scored)

    def scored(self) -> dict[str, dict[str, int]]:
        """How much of each kind of held-out text is scored; empty where nobody wrote it down."""
        path = self.path / SCORED
        return parse_object(path.read_bytes(), str(path), WAY_OUT) if path.is_file() else {}

    @contextmanager
    def claim(self, name: str) -> Iterator[bool]:
        """Take a run; False where another process is working on it."""
        lock = self._lock(f"run-{name}", timeout=0)
        try:
            lock.acquire()
        except Timeout:
            yield False
            return
        try:
            yield True
        finally:
            lock.release()

    def read(self, file: str = RESULTS) -> list[Result]:
        """Lines of a file of results, which is always whole; none where there is no file."""
        path = self.path / file
        lines = path.read_bytes().splitlines() if path.is_file() else []
        results = []
        for number, line in enumerate(lines, 1):
            where = f"{path}, line {number}"
            results.append(parse_object(line, where, "delete the line, and it is run again"))
            Line.check(results[-1], where)
        return results

    def planned(self) -> list[str]:
        """Names of all runs, in the order of the study; none before it has begun."""
        path = self.path / PLAN
        return list(_read_plan(path)["runs"]) if path.is_file() else []

    def append(self, result: Result, file: str = RESULTS) -> None:
        with self._lock("results"):
            self._write_lines(file, [*self.read(file), result])

    def twin(self, point: Point) -> Result | None:
        """The line of a run that was the same training: one of the search is also a result.

        The model moves on to the folder of the result.
        """
        for line in self.read(RESULTS if point.searching else SEARCH):
            asked = (point.family, point.budget, point.seed, point.recipe.train.lr)
            found = tuple(line[key] for key in ("family", "budget", "seed", "lr"))
            if found == asked and "bits_per_byte" in line:
                if not point.searching and self.run(line["name"]).is_dir():
                    # What may lie there was begun before the search, and is the same training.
                    shutil.rmtree(self.run(point.name), ignore_errors=True)
                    os.replace(self.run(line["name"]), self.run(point.name))
                return {**line, "name": point.name}
        return None

    def set_aside(self, points: Iterable[Point]) -> None:
        """Make room for runs that were begun with another learning rate than is the best by now.

        Raises:
            UserError: another process is at such a run.
        """
        rates = {point.name: point.recipe.train.lr for point in points}
        with self._lock("folder"):
            for name, lr in rates.items():
                self._set_run_aside(name, lr)
            with self._lock("results"):  # others may add lines all the time
                lines = self.read()
                stale = [li for li in lines if li["lr"] != rates.get(li["name"], li["lr"])]
                if stale:
                    self._write_lines(SUPERSEDED, [*self.read(SUPERSEDED), *stale])
                    self._write_lines(RESULTS, [line for line in lines if line not in stale])

    def _set_run_aside(self, name: str, lr: float) -> None:
        run = self.run(name)
        old = read_recipe(run / RECIPE).train.lr if (run / RECIPE).is_file() else lr
        if old == lr:
            return
        with self.claim(name) as mine:
            if not mine:
                raise UserError(
                    f"{self.path}: another process trains {name} with learning rate {old:g}, which "
                    f"a longer search has bettered; stop it first"
                )
            os.replace(run, self.run(f"{name}-lr{old:g}"))

    def _write_lines(self, file: str, results: list[Result]) -> None:
        durable.write_text(self.path / file, "".join(json.dumps(r) + "\n" for r in results))

    def _lock(self, name: str, timeout: float = -1) -> BaseFileLock:
        return FileLock(self.path / LOCKS / name, timeout=timeout)

    def _check_plan(self, study: Study) -> None:
        made = {
            "scored": {"heldout": study.heldout, "heldout_bytes": study.heldout_bytes},
            "runs": {point.name: to_dict(point.recipe) for point in study.points()},
        }
        plan, path = json.loads(json.dumps(made)), self.path / PLAN  # as it is read back
        old = _read_plan(path) if path.is_file() else plan
        if old["scored"] != plan["scored"]:
            raise UserError(
                f"{self.path}: its runs were scored on other text; choose another folder"
            )
        families = {family.name for family in study.families}
        searched = {line["name"] for line in self.read(SEARCH) if line["family"] in families}
        if other := sorted(searched - {point.name for point in study.search()}):
            raise UserError(
                f"{self.path}: it searched other learning rates, in {', '.join(other)}; more may "
                "be added, none taken away: choose another folder"
            )
        for point in study.points():
            written = old["runs"].get(point.name, plan["runs"][point.name])
            # Read back, since a recipe may have more keys by now, with their defaults.
            before = from_dict(Recipe, written, f"{path}: {point.name}")
            changed = [d for d in differences(before, point.recipe) if d not in MACHINES]
            if changed:
                raise UserError(
                    f"{self.path}: run {point.name} had another {changed[0]}; choose another folder"
                )
        gone = {name: run for name, run in old["runs"].items() if name not in plan["runs"]}
        durable.write_json(path, {**plan, "runs": {**plan["runs"], **gone}})


class Plan(Schema):
    scored: dict[str, Any]
    runs: dict[str, dict[str, Any]]


def _read_plan(path: Path) -> dict[str, Any]:
    plan = parse_object(path.read_bytes(), str(path), WAY_OUT)
    Plan.check(plan, str(path))
    return plan
