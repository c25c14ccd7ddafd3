"""Making a run folder, or taking one up again."""

from __future__ import annotations

import os
from pathlib import Path

from blt.checkpoint.folders import TRAINER
from blt.errors import UserError
from blt.train.lock import LOCK
from blt.train.parallel import Parallel
from blt.train.recipe import Recipe, differences, read_recipe, write_recipe
from blt.train.run import RECIPE, RunFolder

# May change when a run is resumed: they say how long to train and what to report.
MAY_CHANGE = (
    "train.steps",
    "train.seconds",
    "train.flops",
    "train.log_every",
    "train.evals",
    "train.eval_bytes",
    "train.sample_prompts",
    "train.device",
    "train.precision",
    "train.recompute",
    "train.compile",
    "train.checkpoint_every_seconds",
    "train.keep_checkpoints",
    "train.trackers",
    "train.accumulate",  # with other numbers of processes, for the same bytes in a step
)


def open_run(
    path: str | os.PathLike[str],
    recipe: Recipe,
    *,
    resume: bool = False,
    parallel: Parallel | None = None,
) -> RunFolder:
    """The run folder of ``recipe``, made or taken up again, with the recipe in it.

    Raises:
        UserError: the folder is in use and ``resume`` is not asked for, holds something else, or
            belongs to another recipe.
    """
    run = RunFolder(path, parallel)
    if run.parallel.main:
        _open(run, path, recipe, resume)
    run.parallel.barrier()
    return run


def _open(run: RunFolder, path: str | os.PathLike[str], recipe: Recipe, resume: bool) -> None:
    if run.path.exists() and not run.path.is_dir():
        raise UserError(f"{path}: is a file; choose another run folder")
    if run.path.is_dir() and any(left.name != LOCK for left in run.path.iterdir()):
        if not (run.path / RECIPE).is_file():
            raise UserError(f"{path}: is not a run folder, and is not empty; choose another")
        if not resume:
            raise UserError(f"{path}: holds a run already; go on with --resume, or choose another")
        _check_same(read_recipe(run.path / RECIPE), recipe, run.path / RECIPE)
        run.hold()
        run.recover()
        if run.lost_checkpoint:
            raise UserError(
                f"{run.checkpoint}: holds a model without {TRAINER}, so no training can go on from "
                "it; start another run"
            )
    elif resume:
        raise UserError(f"{path}: no run to resume here; leave out --resume to start one")
    else:
        run.path.mkdir(parents=True, exist_ok=True)
        run.hold()
    write_recipe(run.path / RECIPE, recipe)


def _check_same(old: Recipe, new: Recipe, path: Path) -> None:
    changed = [name for name in differences(old, new) if name not in MAY_CHANGE]
    if changed:
        raise UserError(
            f"{path}: was started with another {changed[0]}; resume with the same recipe, or start "
            "another run"
        )
