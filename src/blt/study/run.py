"""Runs a study; killed at any moment, it goes on there.

Several processes may work on one folder, here or on machines that share it: each takes work that
no other has.
"""

from __future__ import annotations

import glob
import logging
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from blt.checkpoint.pretrained import find_entropy_model
from blt.errors import UserError, named
from blt.study.characters import Model, Turn, teach, turns, words_for
from blt.study.config import Point, Study, slug
from blt.study.costs import costs_of
from blt.study.evaluations import Evaluation, ask
from blt.study.folder import (
    CHARACTERS,
    COSTS,
    EVALS,
    RESULTS,
    SCORES,
    StudyFolder,
)
from blt.study.heldout import Heldout, warn_of_overlap
from blt.study.scoring import score_line
from blt.study.search import Search
from blt.study.timing import Clock
from blt.study.training import OnPoint, Training
from blt.train.build import find_tokenizer

log = logging.getLogger("blt")
WAIT = 5.0  # seconds before another look at what other processes have done


@dataclass(frozen=True)
class Job:
    """A piece of work that one process does."""

    lock: str  # who holds it is at it
    file: str  # gets the line
    name: str  # of the line
    work: Callable[[], None]


def run_study(
    study: Study,
    folder: str | os.PathLike[str],
    *,
    seconds: float | None = None,
    families: Sequence[str] = (),
    only_characters: bool = False,
    on_point: OnPoint | None = None,
) -> None:
    """Train, score and time what is missing in ``folder``.

    Args:
        folder: new, or of the same study; other processes may work in it.
        seconds: begin nothing that would not end within so many, as far as runs of before tell;
            the last sixth is for scoring. None: until all is done.
        families: names of those to work on, as if there were no others; none: all.
        only_characters: train and score nothing, but teach what has been chosen by now.
        on_point: called before each run.

    Raises:
        UserError: a bad recipe, text or folder, or a family that is not there.
        KeyboardInterrupt: after Ctrl-C, once a checkpoint is written.
    """
    for name in families:
        study.family(name)
    clock = Clock(seconds)
    out = StudyFolder(folder)
    check_needs(study)
    heldout = Heldout.read(study)
    warn_of_overlap(study, out.begin(study, heldout.facts, partial(heldout.overlap, study)))
    runner = Runner(study, out, heldout, on_point, clock, families, only_characters)
    while jobs := runner.jobs():
        if not any(map(runner.takes, jobs)):
            time.sleep(WAIT)
    search = runner.search()
    warn_of_edges(study, search)
    if gone := [point.name for point in search.chosen() if not runner.training.has_weights(point)]:
        log.warning(
            "%s: the weights of %d runs are gone, so what was not scored, asked or timed of them "
            "is left out: %s",
            *(folder, len(gone), ", ".join(gone)),
        )
    if (left := search.wanted()) and not only_characters:
        log.warning("%s: not run in %g seconds: %s", folder, seconds, left[0].name)
    if clock.over:
        log.warning("%s: what was not asked or timed in %g seconds is left out", folder, seconds)


def check_needs(study: Study) -> None:
    """Find out before the first run what would stop a later one.

    Raises:
        UserError: an entropy model, tokenizer or evaluation's file that is not there, a library
            that is missing.
    """
    for one in study.asked:
        for path in one.files:
            if not glob.glob(path, recursive=True):
                raise UserError(f"{study.where}: evaluations: {one.name}: {path}: no such file")
    for of in study.characters:
        with named(f"{study.where}: characters: {of.name}"):
            words_for(of.words, of.unseen)
    for family in study.families:
        recipe = study.point(family, study.budgets[0], 0, study.lrs[0], 0).recipe
        with named(f"{study.where}: {family.name}"):
            if family.patcher is None:
                find_entropy_model(recipe.entropy_model)
            if recipe.kind == "token":
                find_tokenizer(recipe)


class Runner:
    """One process at work on a study."""

    def __init__(
        self,
        study: Study,
        out: StudyFolder,
        heldout: Heldout,
        on_point: OnPoint | None,
        clock: Clock,
        families: Sequence[str] = (),
        only_characters: bool = False,
    ) -> None:
        self.study, self.out, self.heldout, self.on_point = study, out, heldout, on_point
        self.clock, self.families, self.only_characters = clock, families, only_characters
        self.training = Training(study, out, clock, on_point)

    def search(self) -> Search:
        return Search(self.study, self.out.lines(), self.families)

    def jobs(self) -> list[Job]:
        """What can be done now; nothing: all is done. Timing comes last, on a quiet machine."""
        search = self.search()
        chosen = [point for point in search.chosen() if self.training.has_weights(point)]
        whole = {point.name for point in search.chosen(whole=True)}
        characters = self._characters([point for point in chosen if point.name in whole])
        if self.only_characters:
            return self._left(characters)
        scores = [_job("score", SCORES, p.name, partial(self._score, p)) for p in chosen]
        runs = [
            _job("train", RESULTS, p.name, partial(self.training.train, p))
            for p in search.wanted()
            if self.clock.affords(p.recipe.train.flops or 0.0)
        ]
        evals = [
            _job("eval", EVALS, f"{one.name} {p.name}", partial(self._evaluate, one, p))
            for one in self.study.evaluations
            for p in chosen
            if not one.budgets or p.budget in one.budgets
        ]
        costs = [
            _job("costs", COSTS, p.name, partial(self._time, p)) for p in chosen if p.seed == 0
        ]
        wanted = [*scores, *runs], *([] if self.clock.over else [evals, characters, costs])
        return next((jobs for jobs in map(self._left, wanted) if jobs), [])

    def _characters(self, chosen: Sequence[Point]) -> list[Job]:
        models = [Model(p.name, p.family, p.budget, p.recipe) for p in chosen]
        lines = self.out.lines(CHARACTERS) if self.study.characters else []
        return [
            _job("teach", CHARACTERS, turn.name, partial(self._teach, turn))
            for of in self.study.characters
            for turn in turns(of, models, lines)
        ]

    def _left(self, jobs: Sequence[Job]) -> list[Job]:
        """Those whose lines are not there; every file is read once."""
        done = {file: self._done(file) for file in {job.file for job in jobs}}
        return [job for job in jobs if job.name not in done[job.file]]

    def _done(self, file: str) -> set[str]:
        return {line["name"] for line in self.out.lines(file)}

    def takes(self, job: Job) -> bool:
        """Do a job, unless another process is at it."""
        with self.out.claim(job.lock) as mine:
            if not mine or job.name in self._done(job.file):
                return False
            job.work()
            return True

    def _teach(self, turn: Turn) -> None:
        if self.on_point is not None:
            self.on_point(turn.name)
        model = self.training.model(turn.model.run, turn.model.recipe)
        self.out.append(teach(turn, model), CHARACTERS)

    def _score(self, point: Point) -> None:
        if self.on_point is not None:
            self.on_point(f"scoring {point.name}")
        model = self.training.model(point.name, point.recipe)
        self.out.append(score_line(point, model, self.heldout), SCORES)

    def _evaluate(self, one: Evaluation, point: Point) -> None:
        if self.on_point is not None:
            self.on_point(f"{one.name} {point.name}")
        rows = ask(one, self.training.model(point.name, point.recipe))
        line = {"name": f"{one.name} {point.name}", "run": point.name, "evaluation": one.name}
        self.out.append({**line, "settings": one.fixed, "rows": rows}, EVALS)

    def _time(self, point: Point) -> None:
        recipe = self.training.resolved(point)
        model = self.training.model(point.name, point.recipe)
        costs = costs_of(model, recipe, self.training.sources(recipe))
        line = {"name": point.name, **costs}
        self.out.append(line, COSTS)


def _job(what: str, file: str, name: str, work: Callable[[], None]) -> Job:
    # One process at a time measures what a machine costs.
    return Job(what if what == "costs" else f"{what}-{slug(name)}", file, name, work)


def warn_of_edges(study: Study, search: Search) -> None:
    """Something better may lie beyond the smallest and largest that could be tried."""
    for budget in study.budgets:
        for family in search.families(budget):
            best = search.best(family, budget)
            if best is None:
                continue
            sizes, lrs = len(family.sizes), study.lrs
            ends = {"size": (best.size, (0, sizes - 1)), "rate": (best.lr, (lrs[0], lrs[-1]))}
            for what, (value, ladder) in ends.items():
                if value in ladder and len(set(ladder)) > 1:
                    log.warning(
                        "%s at %g FLOPs: its best %s, %g, is at the end of the ladder; a longer "
                        "one may find a better",
                        *(family.name, budget, what, value),
                    )
