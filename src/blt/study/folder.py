"""What a study keeps on disk, shared by all processes that work on it."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any

from filelock import BaseFileLock, FileLock, Timeout

from blt.errors import UserError, require
from blt.files import durable
from blt.files.configs import from_dict, to_dict
from blt.files.schema import Amount, Count, Schema
from blt.files.strict_json import parse_object
from blt.study.config import Point, Study
from blt.study.lines import Line, check_same
from blt.train.recipe import Recipe, differences

RESULTS, SCORES, COSTS = "results.jsonl", "scores.jsonl", "costs.jsonl"
EVALS, CHARACTERS = "evals.jsonl", "characters.jsonl"
RUNS, RECIPES, LOCKS, TOKENIZERS = "runs", "recipes.json", "locks", "tokenizers"
HELDOUT = "heldout.json"  # what is scored: documents, and the bytes of every piece
OVERLAP = "overlap.json"  # share of each text's 50-byte blocks that occur in the training text
MACHINES = ("train.precision", "train.device", "tokenizer")  # may differ
ELSEWHERE = "entropy_model"  # may too, but where it is a patcher of the study
OVER = 1.05  # times its budget of FLOPs: a run that takes more is named
WAY_OUT = "restore it, or choose another folder"
AGAIN = f"delete the line and, of a run, its folder in {RUNS}; then it is made again"


class Run(Schema):
    """What every line of results has."""

    name: str
    family: str
    budget: Amount
    size: Count
    lr: Amount
    seed: Count
    validation_bits: Amount | None  # None: the training gave up


class Named(Schema):
    """What every other line has."""

    name: str


class Answered(Schema):
    """What every line of an evaluation has."""

    name: str
    run: str
    evaluation: str
    rows: list[dict[str, Any]]


class Taught(Schema):
    """What every line of a fine-tuning has."""

    name: str
    characters: str
    family: str
    budget: Amount
    split: Amount
    lr: Amount
    seed: Count
    settings: dict[str, Any]
    looks: list[dict[str, Any]]


LINES: dict[str, type[Schema]] = {
    RESULTS: Run,
    SCORES: Named,
    COSTS: Named,
    EVALS: Answered,
    CHARACTERS: Taught,
}


def overrun(line: Line) -> float | None:
    """Times its budget of FLOPs, or its part of that, where a run took clearly more."""
    times = float(line["flops"] / (line["budget"] * line.get("spends", 1.0)))
    return times if times > OVER else None


class StudyFolder:
    """Results of a study, and who works on what.

    A process that dies gives back what it has claimed: the locks are the operating system's.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)

    def run(self, name: str) -> Path:
        """Where a run lies."""
        return self.path / RUNS / name

    def make(self) -> None:
        """Make the folder, where there is none, and those inside."""
        for name in (RUNS, LOCKS, TOKENIZERS):
            (self.path / name).mkdir(parents=True, exist_ok=True)

    def begin(
        self, study: Study, heldout: dict[str, Any], overlap: Callable[[], dict[str, Any]]
    ) -> dict[str, Any]:
        """Make the folder, or check that it belongs to the same study.

        Args:
            heldout: what the study scores.
            overlap: computes what ``overlap.json`` holds; called where it is not there yet.

        Returns:
            what ``overlap.json`` holds.

        Raises:
            UserError: a run or what is scored has changed since; names what.
        """
        self.make()
        path = self.path / HELDOUT
        with self.lock("folder"):
            if not path.is_file():
                durable.write_json(path, heldout)
            self.check_heldout(heldout)
            if not (self.path / OVERLAP).is_file():
                durable.write_json(self.path / OVERLAP, overlap())
        known = {family.name: family for family in study.families}
        for line in self.lines():
            family, lrs = known.get(line["family"]), (line["lr"],)
            if family is None or line["size"] >= len(family.sizes) or lrs[0] not in study.lrs:
                continue  # of families, sizes and rates that were taken out
            if line["budget"] in study.budgets:
                where = (family, line["budget"], line["size"], line["lr"], line["seed"])
                self._check(study.point(*where))
        for patcher in study.patchers:
            for budget in study.budgets:
                self._check(study.patcher_point(patcher.name, budget))
        self._check_settings(study)
        return self.json(OVERLAP)

    def check_heldout(self, heldout: dict[str, Any]) -> None:
        """Is what a study scores what the lines here were scored on?

        Raises:
            UserError: it is other text.
        """
        message = f"{self.path / HELDOUT}: is not what this study scores; choose another folder"
        require(self.json(HELDOUT) == heldout, message)

    def _check_settings(self, study: Study) -> None:
        """What runs were searched by, and asked, must be the same for all.

        Raises:
            UserError: it has changed since; names the key.
        """
        for line in self.lines():  # older lines do not say
            had = line.get("validation_bytes", study.validation_bytes)
            same = had == study.validation_bytes
            require(same, f"{self.path}: had validation_bytes {had}; choose another folder")
        wanted = {one.name: one.fixed for one in study.evaluations}
        for line in self.lines(EVALS):
            where = f"{self.path / EVALS}: evaluations: {line['evaluation']}"
            check_same(where, line.get("settings", {}), wanted.get(line["evaluation"], {}))

    def note(self, point: Point) -> None:
        """Write down the recipe of a run before it begins.

        Raises:
            UserError: a run of that name had another; names what.
        """
        with self.lock("folder"):
            self._check(point)
            recipes = {**self.json(RECIPES), point.name: to_dict(point.recipe)}
            durable.write_json(self.path / RECIPES, recipes)

    def _check(self, point: Point) -> None:
        written = self.json(RECIPES).get(point.name)
        if written is None:
            return
        # Read back, since a recipe may have more keys by now, with their defaults.
        before = from_dict(Recipe, written, f"{self.path / RECIPES}: {point.name}")
        may = MACHINES if point.patcher is not None else (*MACHINES, ELSEWHERE)
        changed = [name for name in differences(before, point.recipe) if name not in may]
        if changed:
            raise UserError(
                f"{self.path}: run {point.name} had another {changed[0]}; choose another folder"
            )

    @contextmanager
    def claim(self, name: str) -> Iterator[bool]:
        """Take a piece of work; False where another process is at it."""
        lock = self.lock(name, timeout=0)
        try:
            lock.acquire()
        except Timeout:
            yield False
            return
        try:
            yield True
        finally:
            lock.release()

    def lines(self, file: str = RESULTS) -> list[Line]:
        """Lines of all that has ended; the file is always whole, no file has none."""
        path = self.path / file
        lines = path.read_bytes().splitlines() if path.is_file() else []
        found = []
        for number, line in enumerate(lines, 1):
            where = f"{path}, line {number}"
            found.append(parse_object(line, where, AGAIN))
            LINES[file].check(found[-1], where)
        return found

    def append(self, line: Line, file: str = RESULTS) -> None:
        """Add a line, whole or not at all."""
        with self.lock("lines"):
            every = (*self.lines(file), line)
            lines = [json.dumps(each, allow_nan=False) + "\n" for each in every]
            durable.write_text(self.path / file, "".join(lines))

    def json(self, file: str) -> dict[str, Any]:
        """What a file holds; empty where it is not there."""
        path = self.path / file
        return parse_object(path.read_bytes(), str(path), WAY_OUT) if path.is_file() else {}

    def tokenizer(self, vocab_size: int, train: Callable[[], str]) -> Path:
        """A tokenizer.json, made once for all runs by ``train``."""
        path = self.path / TOKENIZERS / f"{vocab_size}.json"
        with self.lock(f"tokenizer-{vocab_size}"):
            if not path.is_file():
                durable.write_text(path, train())
        return path

    def drawing(self) -> AbstractContextManager[object]:
        """One process at a time draws: those of a study end together, and others look on. Where
        only the lines of a study were kept, nobody else is at work."""
        return self.lock("report") if (self.path / LOCKS).is_dir() else nullcontext()

    def lock(self, name: str, timeout: float = -1) -> BaseFileLock:
        return FileLock(self.path / LOCKS / name, timeout=timeout)
