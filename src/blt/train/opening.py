"""Making a run folder, or taking one up again."""

from __future__ import annotations

import json
import os
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

from blt.checkpoint.folders import TRAINER
from blt.errors import UserError, require
from blt.files import durable
from blt.files.lock import holds_nothing
from blt.train.parallel import Parallel
from blt.train.recipe import Recipe, differences, read_recipe, values, write_recipe
from blt.train.run import CHANGES, RECIPE, RunFolder

# May change when a run is resumed: they say how long to train, what to report, and where the text
# lies, which is the same text or refused.
MAY_CHANGE = (
    "data.sources",
    "train.steps",
    "train.epochs",
    "train.bytes",
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
# May change on purpose: how what comes next is learned. The text stays in its order.
ON_PURPOSE = (
    "data.batch_bytes",
    *(f"train.{name}" for name in ("lr", "schedule", "min_lr_ratio", "warmup", "decay")),
    *(f"train.{name}" for name in ("betas", "weight_decay", "clip", "most_norm", "most_skipped")),
    "train.stale_patches",
    "routing.ratio_loss",
    "routing.warmup",
)
FIXED = (
    "cannot change while a run goes on; resume with the same recipe, or start another run, which "
    "may begin from the model of this one (init)"
)


def open_run(
    path: str | os.PathLike[str],
    recipe: Recipe,
    *,
    resume: bool = False,
    parallel: Parallel | None = None,
    change: Collection[str] = (),
) -> RunFolder:
    """The run folder of ``recipe``, made or taken up again, with its recipe in it.

    Args:
        change: dotted names of what a run that is taken up changes on purpose;
            :func:`record_changes` is still to be called.

    Raises:
        UserError: the folder is in use and ``resume`` is not asked for, holds something else, or
            belongs to another recipe.
    """
    run = RunFolder(path, parallel)
    if run.parallel.main:
        _open(run, path, recipe, resume, change)
    run.parallel.barrier()
    return run


def read_changed(folder: Path, changes: Sequence[str]) -> Recipe:
    """The recipe of a run, with changes such as ``train.lr=1e-4``.

    Raises:
        UserError: no run there, or something that cannot change while a run goes on; names it.
    """
    path = folder / RECIPE
    require(path.is_file(), f"{folder}: no run to resume here; name the folder of one")
    for name in names_of(changes):
        require(name in (*MAY_CHANGE, *ON_PURPOSE), f"{name}: {FIXED}")
    return read_recipe(path, changes)


def names_of(changes: Sequence[str]) -> list[str]:
    """The dotted names of changes."""
    return [change.partition("=")[0].strip() for change in changes]


def record_changes(run: RunFolder, recipe: Recipe) -> list[str]:
    """Write down what a run that is taken up does otherwise from now on, and its recipe.

    Called once the recipe, the model and the text are known to belong to the run.

    Returns:
        a line for each change.
    """
    before, after = values(read_recipe(run.path / RECIPE)), values(recipe)
    step = run.trainer_values()["step"] if run.has_checkpoint else 0
    found = [
        {"step": step, "name": name, "was": before.get(name), "is": after.get(name)}
        for name in sorted(before.keys() | after.keys())
        if before.get(name) != after.get(name)
    ]
    if run.parallel.main:
        path = run.path / CHANGES
        old: list[dict[str, Any]] = json.loads(path.read_text()) if path.is_file() else []
        if found:
            durable.write_json(path, [*old, *found], indent=2)
        write_recipe(run.path / RECIPE, recipe)
    return [f"from step {step}: {x['name']} {x['was']} → {x['is']}" for x in found]


def _open(
    run: RunFolder,
    path: str | os.PathLike[str],
    recipe: Recipe,
    resume: bool,
    change: Collection[str],
) -> None:
    if run.path.exists() and not run.path.is_dir():
        raise UserError(f"{path}: is a file; choose another run folder")
    if run.path.is_dir() and not holds_nothing(run.path):
        if not (run.path / RECIPE).is_file():
            raise UserError(f"{path}: is not a run folder, and is not empty; choose another")
        if not resume:
            raise UserError(f"{path}: holds a run already; go on with --resume, or choose another")
        _check_same(read_recipe(run.path / RECIPE), recipe, run.path / RECIPE, change)
        run.hold()
        run.recover()
        if run.lost_checkpoint:
            raise UserError(
                f"{run.checkpoint}: holds a model without {TRAINER}, so no training can go on from "
                "it; start another run"
            )
        return
    elif resume:
        raise UserError(f"{path}: no run to resume here; leave out --resume to start one")
    else:
        run.path.mkdir(parents=True, exist_ok=True)
        run.hold()
    write_recipe(run.path / RECIPE, recipe)


def _check_same(old: Recipe, new: Recipe, path: Path, change: Collection[str]) -> None:
    for name in differences(old, new):
        if name in MAY_CHANGE or (name in change and name in ON_PURPOSE):
            continue
        started = f"{path}: was started with another {name}"
        if name in ON_PURPOSE:
            raise UserError(
                f"{started}; resume with the same recipe, or change it on purpose, with --change "
                f"{name}=..."
            )
        raise UserError(f"{started}, which {FIXED}")
