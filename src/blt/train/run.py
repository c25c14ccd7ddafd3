"""A run folder: everything of one training, and a checkpoint that is always whole.

==================  =============================================================
``recipe.toml``     the recipe with every default and override spelled out
``metrics.jsonl``   one JSON object per line, in the order of events
``checkpoint/``     the last checkpoint: a model folder, and the trainer's state
``checkpoints/``    older ones, if the recipe keeps some
``init.json``       of a run that began from another model: what was changed, and what it cost
``changes.json``    settings that were changed on the way, each with the step at which it was
==================  =============================================================
"""

from __future__ import annotations

import json
import os
import shutil
import time
import warnings
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import BaseFileLock
from safetensors import SafetensorError
from torch import Tensor
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.hf_storage import (
    HuggingFaceStorageReader,
    HuggingFaceStorageWriter,
)
from torch.distributed.checkpoint.state_dict_loader import load as load_parts
from torch.distributed.checkpoint.state_dict_saver import save as save_parts

from blt.checkpoint.folders import CONFIG, INIT, TRAINER, move_into_place
from blt.errors import UserError
from blt.files import checksums, durable
from blt.files.lock import hold
from blt.files.strict_json import read_object
from blt.lm import LanguageModel
from blt.train.parallel import Parallel, whole
from blt.train.state import NAMES

RECIPE, METRICS, CHECKPOINT = "recipe.toml", "metrics.jsonl", "checkpoint"
CHANGES = "changes.json"
TENSORS = "trainer"
OLDER = "checkpoints"


@dataclass(frozen=True)
class TrainerState:
    """What a trainer needs, beside the model, to go on exactly."""

    tensors: dict[str, Tensor]
    values: dict[str, Any]  # fits in JSON


class RunFolder:
    """The folder of one run; open it with :func:`blt.train.opening.open_run`.

    Attributes:
        parallel: the processes that share the run; only the main one changes small files.
        save_seconds: that the last checkpoint took to write.
    """

    def __init__(self, path: str | os.PathLike[str], parallel: Parallel | None = None) -> None:
        self.path, self.parallel = Path(path), parallel or Parallel()
        self.save_seconds = 0.0
        self._writer = ThreadPoolExecutor(1, "blt-checkpoint")
        self._writing: Future[None] | None = None
        self._held: BaseFileLock | None = None

    def hold(self) -> None:
        """Refuse the folder to other programs that train, as :func:`blt.files.lock.hold`."""
        self._held = hold(self.path)

    @property
    def checkpoint(self) -> Path:
        return self.path / CHECKPOINT

    @property
    def has_checkpoint(self) -> bool:
        return (self.checkpoint / TRAINER).is_file()

    @property
    def lost_checkpoint(self) -> bool:
        """Is there a model, but without what a training needs to go on?"""
        return (self.checkpoint / CONFIG).is_file() and not self.has_checkpoint

    def log(self, event: dict[str, Any]) -> None:
        """Append one line to the metrics: no kill loses it from now on.

        The next checkpoint brings it to the disk; a power failure before may take it along with the
        steps that it is about.
        """
        if not self.parallel.main:
            return
        with (self.path / METRICS).open("a") as file:
            file.write(json.dumps(event) + "\n")

    def logged(self, event: str, step: int) -> bool:
        """Is there a line of this kind, at this step, in the metrics?"""
        path = self.path / METRICS
        lines = path.read_text().splitlines() if path.is_file() else []
        found = (json.loads(line) for line in lines)
        return any((li.get("event"), li.get("step")) == (event, step) for li in found)

    def save(
        self, model: LanguageModel, state: TrainerState, keep: int = 1, wait: bool = True
    ) -> None:
        """Replace the checkpoint; a kill at any moment leaves the old or the new one, whole.

        All processes of a training call it; each writes its part, and the main one the rest.

        Args:
            keep: checkpoints to keep, this one included; older ones go to ``checkpoints/``.
            wait: False: only copy weights and state, and write them while training goes on. An
                error comes out of the next call, or of :meth:`finish_saving`.
        """
        self.finish_saving()  # of the one before
        weights = {}
        for name, tensor in model.stored().items():  # one whole tensor at a time
            complete = whole(tensor)
            if self.parallel.main:
                weights[name] = complete if wait and complete is tensor else _copied(complete)
        if wait:
            self._write(model, weights, state, keep)
            return
        tensors = {name: _copied(tensor) for name, tensor in state.tensors.items()}
        state = TrainerState(tensors, state.values)
        self._writing = self._writer.submit(self._write, model, weights, state, keep)

    @property
    def saving(self) -> bool:
        """Is a checkpoint being written beside the training?"""
        return self._writing is not None and not self._writing.done()

    def finish_saving(self) -> None:
        """Wait until the checkpoint that is being written is in its place."""
        writing, self._writing = self._writing, None
        if writing is not None:
            writing.result()

    def _write(
        self, model: LanguageModel, weights: dict[str, Tensor], state: TrainerState, keep: int
    ) -> None:
        start, beside = time.monotonic(), self.path / f".{CHECKPOINT}.writing"
        try:
            self._write_beside(beside, model, weights, state, keep)
        except (OSError, SafetensorError, CheckpointException) as error:
            shutil.rmtree(beside, ignore_errors=True)
            raise UserError(
                f"{self.checkpoint}: could not be written ({_reason(error)}); the one before is "
                "whole: make room, then go on with --resume"
            ) from error
        self.save_seconds = time.monotonic() - start

    def _write_beside(
        self,
        beside: Path,
        model: LanguageModel,
        weights: dict[str, Tensor],
        state: TrainerState,
        keep: int,
    ) -> None:
        new, parallel = beside / "new", self.parallel
        if parallel.main:
            shutil.rmtree(beside, ignore_errors=True)
            beside.mkdir()
            model.save(new, weights)
        parallel.barrier(parallel.writers)
        writer = HuggingFaceStorageWriter(str(new / TENSORS), save_distributed=True)
        with _quiet():
            save_parts(
                state.tensors,
                storage_writer=writer,
                process_group=parallel.writers,
                no_dist=parallel.mesh is None,
            )
        parallel.barrier(parallel.writers)
        if parallel.main:
            values = {**state.values, NAMES: sorted(state.tensors)}
            (new / TRAINER).write_text(json.dumps(values, indent=2) + "\n")
            begun = [INIT] if (self.path / INIT).is_file() else []
            for name in begun:  # goes with the model wherever it goes
                shutil.copy(self.path / name, new)
            checksums.record(new, [TRAINER, *begun, *_parts(new)])
            durable.sync(self.path / METRICS)
            move_into_place(new, self.checkpoint)
            before = next((old for old in beside.iterdir() if old.is_dir()), None)
            self._keep(before, keep - 1, step=state.values["step"])
            shutil.rmtree(beside)
        parallel.barrier(parallel.writers)

    def _keep(self, old: Path | None, count: int, step: int) -> None:
        """Put the checkpoint before this one among the ``count`` older ones, unless it is of the
        same ``step``, as where a run ends or is stopped once more."""
        kept = self.path / OLDER
        if count and old is not None and (old / TRAINER).is_file():
            before = read_object(old / TRAINER)["step"]
            place = kept / f"step-{before:09d}"
            if before != step and not place.exists():
                kept.mkdir(exist_ok=True)
                durable.replace(old, place)
        for path in sorted(kept.glob("step-*"))[: -count or None]:
            shutil.rmtree(path)

    def trainer_values(self) -> dict[str, Any]:
        """The trainer's part of the checkpoint, without tensors.

        Raises:
            UserError: missing or damaged.
        """
        try:
            checksums.check(self.checkpoint, [TRAINER])
            return read_object(self.checkpoint / TRAINER, "restore it")
        except OSError as error:
            raise _cannot_resume(f"{self.checkpoint / TRAINER}: {error.strerror}") from None
        except UserError as error:
            raise _cannot_resume(str(error)) from None

    def trainer_tensors(self, templates: dict[str, Tensor]) -> dict[str, Tensor]:
        """The tensors of the checkpoint, whole or divided like their templates, which are filled.

        Raises:
            UserError: missing or damaged, or of another model.
        """
        path = self.checkpoint / TENSORS
        try:
            noted = checksums.read(self.checkpoint).sha256
            parts = [name for name in noted if name.startswith(f"{TENSORS}/")]
            checksums.check(self.checkpoint, parts)
        except UserError as error:
            raise _cannot_resume(str(error)) from None
        try:
            reader = HuggingFaceStorageReader(str(path))
            # Parameters that no gradient has reached have no state.
            tensors = {name: templates[name] for name in self.trainer_values()[NAMES]}
            with _quiet():
                load_parts(tensors, storage_reader=reader, no_dist=self.parallel.mesh is None)
            return tensors
        except (OSError, ValueError, KeyError, SafetensorError, CheckpointException) as error:
            raise _cannot_resume(f"{path}: missing or damaged ({_reason(error)})") from None

    def recover(self) -> None:
        """Clear up after a kill: drop what is half-written, put back what lies beside."""
        for left in self.path.glob(f".{CHECKPOINT}.*"):
            old = left / "old"  # where two renames were needed, a kill may fall between them
            if not self.checkpoint.exists() and (old / TRAINER).is_file():
                durable.replace(old, self.checkpoint)
            shutil.rmtree(left, ignore_errors=True)

    def forget_after(self, step: int) -> None:
        """Drop metrics of steps after ``step``: they will be taken, and logged, again."""
        path = self.path / METRICS
        if not path.is_file() or not self.parallel.main:
            return
        kept = [line for line in path.read_text().splitlines() if _step(line) <= step]
        durable.write_text(path, "".join(f"{line}\n" for line in kept))


def _cannot_resume(reason: str) -> UserError:
    return UserError(
        f"{reason}; the model beside it may still be whole, but this run cannot be resumed: start "
        "another with --run"
    )


def _parts(checkpoint: Path) -> list[str]:
    """The files of the trainer's tensors, by their names in the checkpoint."""
    return sorted(f"{TENSORS}/{path.name}" for path in (checkpoint / TENSORS).iterdir())


def _copied(tensor: Tensor) -> Tensor:
    """What later steps do not change, in the host's memory; divided tensors stay divided."""
    return tensor.detach().to("cpu", copy=True)


def _reason(error: BaseException) -> str:
    """One line; of several processes' errors, the first."""
    if isinstance(error, CheckpointException):
        error = next(iter(error.failures.values()))[0]
    return " ".join(str(error).split())


@contextmanager
def _quiet() -> Iterator[None]:
    """Without PyTorch's remarks on itself."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _step(line: str) -> int:
    """Step of a line of metrics; a line cut off by a kill belongs to none."""
    try:
        return int(json.loads(line).get("step", 0))
    except (ValueError, AttributeError):
        return 1 << 62
