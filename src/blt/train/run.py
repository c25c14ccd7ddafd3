"""A run folder: everything of one training, and a checkpoint that is always whole.

==================  =============================================================
``recipe.toml``     the recipe with every default and override spelled out
``metrics.jsonl``   one JSON object per line, in the order of events
``checkpoint/``     the last checkpoint: a model folder, and the trainer's state
==================  =============================================================
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from blt.checkpoint import move_into_place
from blt.errors import UserError
from blt.lm import LanguageModel
from blt.train.recipe import Recipe, differences, read_recipe, write_recipe

RECIPE, METRICS, CHECKPOINT = "recipe.toml", "metrics.jsonl", "checkpoint"
TENSORS, STATE = "trainer.safetensors", "trainer.json"
# May change when a run is resumed: they say how long to train and what to report.
MAY_CHANGE = (
    "train.steps",
    "train.seconds",
    "train.log_every",
    "train.evals",
    "train.eval_bytes",
    "train.device",
    "train.precision",
    "train.checkpoint_every_seconds",
)


@dataclass(frozen=True)
class TrainerState:
    """What a trainer needs, beside the model, to go on exactly."""

    tensors: dict[str, Tensor]
    values: dict[str, Any]  # fits in JSON


class RunFolder:
    """The folder of one run; open it with :func:`open_run`."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)

    @property
    def checkpoint(self) -> Path:
        return self.path / CHECKPOINT

    @property
    def has_checkpoint(self) -> bool:
        return (self.checkpoint / STATE).is_file()

    def log(self, event: dict[str, Any]) -> None:
        """Append one line to the metrics; it is on disk when this returns."""
        with (self.path / METRICS).open("a") as file:
            file.write(json.dumps(event) + "\n")

    def save(self, model: LanguageModel, state: TrainerState) -> None:
        """Replace the checkpoint; a kill at any moment leaves the old or the new one, whole."""
        with tempfile.TemporaryDirectory(prefix=f".{CHECKPOINT}.", dir=self.path) as temporary:
            new = Path(temporary) / "new"
            model.save(new)
            save_file(state.tensors, new / TENSORS)
            (new / STATE).write_text(json.dumps(state.values, indent=2) + "\n")
            move_into_place(new, self.checkpoint)

    def trainer_state(self) -> TrainerState:
        """The trainer's part of the checkpoint.

        Raises:
            UserError: missing or damaged.
        """
        path = self.checkpoint / STATE
        try:
            values = json.loads(path.read_text())
            path = self.checkpoint / TENSORS
            return TrainerState(load_file(path), values)
        except (OSError, ValueError, SafetensorError) as error:
            raise UserError(
                f"{path}: missing or damaged ({error}); the model beside it may still be whole, "
                "but this run cannot be resumed: start another with --run"
            ) from None

    def recover(self) -> None:
        """Clear up after a kill: drop what is half-written, put back what lies beside."""
        for left in self.path.glob(f".{CHECKPOINT}.*"):
            old = left / "old"  # where two renames were needed, a kill may fall between them
            if not self.checkpoint.exists() and (old / STATE).is_file():
                os.replace(old, self.checkpoint)
            shutil.rmtree(left, ignore_errors=True)

    def forget_after(self, step: int) -> None:
        """Drop metrics of steps after ``step``: they will be taken, and logged, again."""
        path = self.path / METRICS
        if not path.is_file():
            return
        kept = [line for line in path.read_text().splitlines() if _step(line) <= step]
        beside = path.with_name(f"{METRICS}.new")
        beside.write_text("".join(f"{line}\n" for line in kept))
        os.replace(beside, path)


def open_run(path: str | os.PathLike[str], recipe: Recipe, *, resume: bool = False) -> RunFolder:
    """The run folder of ``recipe``, made or taken up again, with the recipe in it.

    Raises:
        UserError: the folder is in use and ``resume`` is not asked for, holds something else, or
            belongs to another recipe.
    """
    run = RunFolder(path)
    if run.path.exists() and not run.path.is_dir():
        raise UserError(f"{path}: is a file; choose another run folder")
    if run.path.is_dir() and any(run.path.iterdir()):
        if not (run.path / RECIPE).is_file():
            raise UserError(f"{path}: is not a run folder, and is not empty; choose another")
        if not resume:
            raise UserError(f"{path}: holds a run already; go on with --resume, or choose another")
        _check_same(read_recipe(run.path / RECIPE), recipe, run.path / RECIPE)
        run.recover()
    elif resume:
        raise UserError(f"{path}: no run to resume here; leave out --resume to start one")
    run.path.mkdir(parents=True, exist_ok=True)
    write_recipe(run.path / RECIPE, recipe)
    return run


def _check_same(old: Recipe, new: Recipe, path: Path) -> None:
    changed = [name for name in differences(old, new) if name not in MAY_CHANGE]
    if changed:
        raise UserError(
            f"{path}: was started with another {changed[0]}; resume with the same recipe, or start "
            "another run"
        )


def _step(line: str) -> int:
    """Step of a line of metrics; a line cut off by a kill belongs to none."""
    try:
        return int(json.loads(line).get("step", 0))
    except (ValueError, AttributeError):
        return 1 << 62
