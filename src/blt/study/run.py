"""Runs the points of a study; killed at any moment, it goes on there.

Several processes may work on one folder, here or on machines that share it: each takes runs that
no other has.
"""

from __future__ import annotations

import itertools
import logging
import os
import shutil
import time
from collections.abc import Callable, Sequence
from typing import Any

import torch

from blt.byteify import hooks_of
from blt.checkpoint.pretrained import find_entropy_model
from blt.errors import named
from blt.evals.patch_size import patch_size
from blt.files import checksums
from blt.lm import LanguageModel
from blt.machine.precision import choose_dtype
from blt.model.flops import TRAINING_FACTOR
from blt.scoring.bits import bits_per_byte
from blt.study.config import Point, Study
from blt.study.folder import Result, StudyFolder, overrun
from blt.study.heldout import Heldout, check_overlap, warn_of_unscored
from blt.train.build import find_tokenizer
from blt.train.job import train_recipe
from blt.train.loop import OnProgress, Report
from blt.train.meter import Meter
from blt.train.run import CHECKPOINT, RECIPE, TENSORS

log = logging.getLogger("blt")
OnPoint = Callable[[Point, int, int], OnProgress]  # which of how many → where its reports go
WAIT = 5.0  # seconds before another look at what other processes have done


def check_needs(study: Study, points: Sequence[Point], out: StudyFolder) -> None:
    """Find out before the first run what would stop a later one.

    Raises:
        UserError: an entropy model or tokenizer that is not there, a library that is missing.
    """
    done, seen = {result["name"] for result in out.read()}, set()
    for point in (*study.search(), *points):
        recipe = point.recipe
        needs = (point.family, recipe.kind, recipe.entropy_model, recipe.tokenizer)
        if point.name in done or needs in seen:
            continue
        seen.add(needs)
        with named(f"{study.where}: {point.family}"):
            find_entropy_model(recipe.entropy_model)
            if recipe.kind == "token":
                find_tokenizer(recipe)


def run_study(
    study: Study,
    folder: str | os.PathLike[str],
    *,
    on_point: OnPoint | None = None,
) -> list[Result]:
    """Search learning rates, then train and score what is missing in ``folder``.

    Args:
        folder: new, or of the same study; other processes may work in it.
        on_point: called before each run.

    Returns:
        the results of all runs, as in ``folder/results.jsonl``.

    Raises:
        UserError: a bad recipe, text or folder.
        KeyboardInterrupt: after Ctrl-C, once a checkpoint is written.
    """
    out = StudyFolder(folder)
    points = chosen(study, out)
    check_needs(study, points, out)
    heldout = Heldout.read(study)
    scored = heldout.scored(study.heldout_bytes)
    out.begin(study, points, lambda: check_overlap(study, heldout), scored)
    warn_of_unscored(study, scored)

    def train_and_score(point: Point, show: OnProgress | None) -> Result:
        return _run(point, study, out, heldout, show)

    _each(list(study.search()), out, on_point, train_and_score)
    warn_of_edges(study, tried(study, out))
    points = chosen(study, out)
    out.plan(study, points)
    _each(points, out, on_point, train_and_score)
    warn_of_worse(read_results(folder), out.read())
    return read_results(folder)


def read_results(folder: str | os.PathLike[str]) -> list[Result]:
    """Results of the runs that are compared and have ended, in the order of the study."""
    out = StudyFolder(folder)
    order = {name: index for index, name in enumerate(out.planned())}
    ended = [result for result in out.read() if result["name"] in order]
    return sorted(ended, key=lambda result: order[result["name"]])


def tried(study: Study, out: StudyFolder) -> list[Result]:
    """Lines of the search's runs that have ended."""
    names = {point.name for point in study.search()}
    return [result for result in out.read() if result["name"] in names]


def chosen(study: Study, out: StudyFolder) -> list[Point]:
    """What is compared, with the best of the learning rates that have been tried."""
    search = tried(study, out)
    return [point.with_lr(best_lr(search, point)) for point in study.points()]


def best_lr(search: Sequence[Result], point: Point) -> float | None:
    """The learning rate with the fewest bits per byte on the runs' own held-out text.

    Of those tried with the family at the point's budget, or else at the largest one below it; None:
    none was.
    """
    ours = [r for r in search if r["family"] == point.family and r["budget"] <= point.budget]
    if not ours:
        return None
    budget = max(result["budget"] for result in ours)
    there = [result for result in ours if result["budget"] == budget]
    return float(min(there, key=_own_heldout)["lr"])


def _own_heldout(result: Result) -> float:
    return float(result["heldout_bits_per_byte"])


def warn_of_edges(study: Study, search: Sequence[Result]) -> None:
    """A better learning rate may lie beyond the lowest and the highest that were tried."""
    searches: dict[tuple[str, float], list[Result]] = {}
    for result in search:
        searches.setdefault((result["family"], result["budget"]), []).append(result)
    for (family, budget), found in searches.items():
        lr = min(found, key=_own_heldout)["lr"]
        for edge, which in ((min, "lowest"), (max, "highest")):
            if len(found) > 1 and lr == edge(result["lr"] for result in found):
                log.warning(
                    "%s at %g FLOPs: its best learning rate, %g, is the %s tried; add more to lrs "
                    "of %s, and the same command tries them",
                    *(family, budget, lr, which, study.where),
                )


def warn_of_worse(results: Sequence[Result], lines: Sequence[Result]) -> None:
    """A rate that is better at one budget may be worse at a larger one, as an earlier run shows."""
    for after, before in itertools.product(results, lines):
        same = all(after[key] == before[key] for key in ("family", "budget", "seed"))
        if same and _own_heldout(after) > _own_heldout(before):
            log.warning(
                "%s: %.3f bits per byte of its own held-out text with learning rate %g, %.3f with "
                "%g before; give %r lrs at %g FLOPs",
                *(after["name"], _own_heldout(after), after["lr"]),
                *(_own_heldout(before), before["lr"], before["family"], before["budget"]),
            )


def _each(
    points: Sequence[Point],
    out: StudyFolder,
    on_point: OnPoint | None,
    work: Callable[[Point, OnProgress | None], Result],
) -> None:
    """Let ``work`` make the line of every point, until there is one for each."""

    def done() -> set[str]:
        return {result["name"] for result in out.read()}

    while not done().issuperset(point.name for point in points):
        idle = True
        for number, point in enumerate(points, 1):
            with out.claim(point.name) as mine:
                if not mine or point.name in done():
                    continue
                idle = False
                show = on_point(point, number, len(points)) if on_point else None
                try:
                    out.append(work(point, show))
                except KeyboardInterrupt:
                    message = f"stopped in run {number}; the same command goes on there"
                    raise KeyboardInterrupt(message) from None
                _forget_optimisers(out, point)
        if idle:
            time.sleep(WAIT)


def _forget_optimisers(out: StudyFolder, point: Point) -> None:
    """Their state is of no use any more."""
    checkpoint = out.run(point.name) / CHECKPOINT
    checksums.forget(checkpoint, f"{TENSORS}/")
    shutil.rmtree(checkpoint / TENSORS, ignore_errors=True)


class _Watch:
    """Passes reports on, and times the training without what came before and after."""

    def __init__(self, show: OnProgress | None) -> None:
        self.show = show
        self.reports: list[Report] = []
        self._processor: list[float] = []  # seconds at each report

    def __call__(self, report: Report) -> None:
        self.reports.append(report)
        self._processor.append(time.process_time())
        if self.show is not None:
            self.show(report)

    def seconds(self, device: torch.device) -> float:
        """Wall clock; on a CPU processor time over threads, which other programs do not add to."""
        first, last = self.reports[0], self.reports[-1]
        if device.type != "cpu" or len(self.reports) == 1:
            return last.seconds
        used = (self._processor[-1] - self._processor[0]) / torch.get_num_threads()
        # A run that went on after a kill is timed from there.
        return used / max(1, last.bytes_seen - first.bytes_seen) * last.bytes_seen


def _train(point: Point, out: StudyFolder, show: OnProgress | None) -> tuple[LanguageModel, _Watch]:
    """Train one point, from its checkpoint if there is one."""
    watch, folder, recipe = _Watch(show), out.run(point.name), point.recipe
    begun = (folder / RECIPE).is_file()
    return train_recipe(recipe, folder, begun, watch, hooks=hooks_of(recipe)), watch


def _facts(point: Point, model: LanguageModel, watch: _Watch) -> Result:
    last = watch.reports[-1]
    meter = Meter(model, point.recipe.data.context_bytes, torch.float32)
    patching = meter.entropy_flops_per_byte  # forward only, also in training
    forward = (last.flops / last.bytes_seen - patching) / TRAINING_FACTOR
    return {
        "name": point.name,
        "family": point.family,
        "budget": point.budget,
        "seed": point.seed,
        "lr": point.recipe.train.lr,
        "flops": last.flops,
        "inference_flops_per_byte": forward + patching,
        "bytes_seen": last.bytes_seen,
        "seconds": watch.seconds(model.device),
        "precision": str(choose_dtype(point.recipe.train.precision, model.device)).split(".")[1],
        "parameters": sum(p.numel() for p in model.parameters() if p.requires_grad),
        "skipped": last.skipped,
        "heldout_bits_per_byte": last.heldout_bits_per_byte,
    }


def _run(
    point: Point, study: Study, out: StudyFolder, heldout: Heldout, show: OnProgress | None
) -> Result:
    model, watch = _train(point, out, show)
    facts = _facts(point, model, watch)
    if times := overrun(facts):
        log.warning(
            "%s: its %d steps took %.2f times its budget of FLOPs; give it smaller batches, a "
            "smaller model or patcher, or a larger budget",
            *(point.name, watch.reports[-1].step, times),
        )
    context, scored = point.recipe.data.context_bytes, study.heldout_bytes
    return {
        **facts,
        "patch_size": patch_size(model, heldout.all(scored, context), context),
        "bits_per_byte": _scores(model, point, study, heldout),
    }


def _scores(model: LanguageModel, point: Point, study: Study, heldout: Heldout) -> dict[str, float]:
    how: dict[str, Any] = {
        "context_bytes": point.recipe.data.context_bytes,
        "max_bytes": study.heldout_bytes,
        "dtype": choose_dtype(point.recipe.train.precision, model.device),
    }
    return {
        kind: bits_per_byte(model, documents, **how) for kind, documents in heldout.kinds.items()
    }
