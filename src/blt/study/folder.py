"""What a study keeps on disk, shared by all processes that work on it."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import BaseFileLock, FileLock, Timeout
from pydantic import Field

from blt.errors import UserError
from blt.files import durable
from blt.files.configs import from_dict, to_dict
from blt.files.schema import Amount, Count, Schema
from blt.files.strict_json import parse_object
from blt.study.config import Point, Study
from blt.train.recipe import Recipe, differences

RESULTS, RUNS = "results.jsonl", "runs"
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
        points: Sequence[Point],
        overlap: Callable[[], dict[str, float]],
        scored: dict[str, dict[str, int]],
    ) -> None:
        """Write down what is to be done, or check that the folder belongs to the same study.

        Args:
            points: those of the study, with the learning rates that are the best so far.
            overlap: computes what ``overlap.json`` holds; called where it is not there yet.
            scored: documents and bytes of each kind of held-out text, and how many there are.

        Raises:
            UserError: the study has changed since the folder was made; names what.
        """
        for name in (RUNS, LOCKS):
            (self.path / name).mkdir(parents=True, exist_ok=True)
        with self._lock("folder"):
            self._plan(study, points)
            if not (self.path / OVERLAP).is_file():
                durable.write_json(self.path / OVERLAP, overlap())
            durable.write_json(self.path / SCORED, scored)

    def plan(self, study: Study, points: Sequence[Point]) -> None:
        """Write down which runs are the results: ``points``, with the best learning rates.

        Raises:
            UserError: a run had another recipe; names what.
        """
        with self._lock("folder"):
            self._plan(study, points)

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

    def read(self) -> list[Result]:
        """Lines of all runs that have ended; the file is always whole, no file has none."""
        path = self.path / RESULTS
        lines = path.read_bytes().splitlines() if path.is_file() else []
        results = []
        for number, line in enumerate(lines, 1):
            where = f"{path}, line {number}"
            results.append(parse_object(line, where, "delete the line, and it is run again"))
            Line.check(results[-1], where)
        return results

    def planned(self) -> list[str]:
        """Names of the runs that are results, in the order of the study; none before it began."""
        path = self.path / PLAN
        plan = _read_plan(path) if path.is_file() else {"runs": {}}
        return list(plan.get("results", plan["runs"]))

    def append(self, result: Result) -> None:
        with self._lock("results"):
            lines = [json.dumps(line) + "\n" for line in (*self.read(), result)]
            durable.write_text(self.path / RESULTS, "".join(lines))

    def _lock(self, name: str, timeout: float = -1) -> BaseFileLock:
        return FileLock(self.path / LOCKS / name, timeout=timeout)

    def _plan(self, study: Study, points: Sequence[Point]) -> None:
        made = {
            "scored": {"heldout": study.heldout, "heldout_bytes": study.heldout_bytes},
            "runs": {p.name: to_dict(p.recipe) for p in (*study.search(), *points)},
            "results": [point.name for point in points],
        }
        plan, path = json.loads(json.dumps(made)), self.path / PLAN  # as it is read back
        old = _read_plan(path) if path.is_file() else plan
        if old["scored"] != plan["scored"]:
            raise UserError(
                f"{self.path}: its runs were scored on other text; choose another folder"
            )
        for point in (*study.search(), *points):
            written = old["runs"].get(point.name, plan["runs"][point.name])
            # Read back, since a recipe may have more keys by now, with their defaults.
            before = from_dict(Recipe, written, f"{path}: {point.name}")
            changed = [d for d in differences(before, point.recipe) if d not in MACHINES]
            if changed:
                raise UserError(
                    f"{self.path}: run {point.name} had another {changed[0]}; choose another folder"
                )
        durable.write_json(path, {**plan, "runs": {**old["runs"], **plan["runs"]}})


class Plan(Schema):
    scored: dict[str, Any]
    runs: dict[str, dict[str, Any]]  # recipes of all runs that ever were to be done, by name
    results: list[str] = Field(default_factory=list)  # names of those compared; left out: all


def _read_plan(path: Path) -> dict[str, Any]:
    plan = parse_object(path.read_bytes(), str(path), WAY_OUT)
    Plan.check(plan, str(path))
    return plan
