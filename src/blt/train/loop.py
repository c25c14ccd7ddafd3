"""The training loop: steps, reports, evaluations and checkpoints within a budget."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from blt.data.loader import Loader
from blt.evals.bpb import bits_per_byte
from blt.lm import LanguageModel
from blt.train.budget import Budget
from blt.train.interrupt import StopRequest
from blt.train.recipe import TrainConfig
from blt.train.run import RunFolder, TrainerState
from blt.train.trainer import Step, Trainer


@dataclass(frozen=True)
class Report:
    """Where a training stands; means are over the steps since the report before."""

    step: int
    progress: float  # 0..1
    seconds: float  # wall clock since the start, interruptions left out
    seconds_left: float  # estimate
    bytes_seen: int
    bytes_per_second: float  # of the steps alone, without evaluations and checkpoints
    bits_per_byte: float  # of the training batches
    heldout_bits_per_byte: float | None  # where this step was evaluated
    patch_size: float | None  # mean bytes per patch
    lr: float
    grad_norm: float
    skipped: int  # steps so far that were left out because loss or gradient was not finite


OnProgress = Callable[[Report], None]


def fit(
    model: LanguageModel,
    loader: Loader,
    config: TrainConfig,
    *,
    heldout: Sequence[bytes] = (),
    run: RunFolder | None = None,
    resume: bool = False,
    on_progress: OnProgress | None = None,
    spent: float = 0.0,
    score_after: int = 0,
) -> Report:
    """Train ``model`` in place.

    Args:
        model: a BLT or byte transformer, on the device to train on.
        loader: batches.
        config: how long and how.
        heldout: documents to evaluate on; none: no evaluations.
        run: folder for metrics and checkpoints; None: nothing is written.
        resume: go on from the run's checkpoint, of which ``model`` was loaded.
        on_progress: called with every report.
        spent: seconds of the budget that are gone already.
        score_after: bytes that the caller will score with the model, within the same budget.

    Returns:
        the last report.

    Raises:
        UserError: loss or gradients stay non-finite; the last checkpoint is whole.
        KeyboardInterrupt: after Ctrl-C or SIGTERM, once a checkpoint is written; says where.
    """
    return _Fit(model, loader, config, heldout, run, on_progress).run(resume, spent, score_after)


class _Fit:
    def __init__(
        self,
        model: LanguageModel,
        loader: Loader,
        config: TrainConfig,
        heldout: Sequence[bytes],
        run: RunFolder | None,
        on_progress: OnProgress | None,
    ) -> None:
        self.trainer = Trainer(model, loader, config)
        self.config, self.heldout, self.folder = config, heldout, run
        self.on_progress = on_progress
        self.evals_done = 0
        self.report: Report | None = None
        self._since: list[Step] = []  # steps since the last report

    def run(self, resume: bool, spent: float, score_after: int) -> Report:
        trainer = self.trainer
        if resume and self.folder is not None and self.folder.has_checkpoint:
            spent += self._restore(self.folder.trainer_state())
            self.folder.forget_after(trainer.steps)
        self.budget = Budget(
            self.config,
            spent,
            scored_bytes=score_after + (self._eval_bytes if self._evaluates else 0),
            checkpoint_bytes=self._checkpoint_bytes() if self.folder else 0,
        )
        trainer.model.train()
        with StopRequest() as stop:
            self._steps(stop)
        trainer.model.eval()
        if stop.wanted:
            raise KeyboardInterrupt(self._stopped())
        report = self._finish()
        self._checkpoint()
        return report

    def _steps(self, stop: StopRequest) -> None:
        saved = time.monotonic()
        while not stop.wanted and (self.trainer.steps == 0 or self._progress() < 1):
            self._since.append(self.trainer.step(self._progress()))
            self.budget.stepped(self._since[-1].seconds)
            progress = self._progress()
            if progress == 1:
                return  # the last report comes with the last evaluation
            due = int(progress * self.config.evals)
            if due > self.evals_done and self._affords_evaluation():
                self.evals_done = due
                self._report(self._evaluate())
            elif self.trainer.steps % self.config.log_every == 0:
                self._report(None)
            if time.monotonic() - saved > self.config.checkpoint_every_seconds:
                self._checkpoint()
                saved = time.monotonic()

    @property
    def _evaluates(self) -> bool:
        return bool(self.heldout) and self.config.evals > 0

    @property
    def _eval_bytes(self) -> int:
        return min(self.config.eval_bytes, sum(map(len, self.heldout)))

    def _affords_evaluation(self) -> bool:
        batch_bytes = self.trainer.loader.batch_bytes
        return self._evaluates and self.budget.affords_evaluation(self._eval_bytes, batch_bytes)

    def _progress(self) -> float:
        return self.budget.progress(self.trainer.steps, self.trainer.loader.batch_bytes)

    def _evaluate(self) -> float:
        start = time.monotonic()
        self.trainer.model.eval()
        value = bits_per_byte(
            self.trainer.model,
            self.heldout,
            context_bytes=self.trainer.loader.context_bytes,
            max_bytes=self.config.eval_bytes,
            dtype=self.trainer.dtype,
        )
        self.trainer.model.train()
        self.budget.evaluated(self._eval_bytes, time.monotonic() - start)
        return value

    def _report(self, heldout: float | None) -> Report:
        steps, self._since = self._since, []
        now = self.budget.seconds
        done = [step for step in steps if not step.skipped]
        sizes = [step.patch_size for step in done if step.patch_size is not None]
        speed = sum(step.num_bytes for step in steps) / max(1e-9, sum(x.seconds for x in steps))
        self.report = Report(
            step=self.trainer.steps,
            progress=self._progress(),
            seconds=now,
            seconds_left=self.budget.seconds_left(self.trainer.steps),
            bytes_seen=self.trainer.bytes_seen,
            bytes_per_second=speed,
            bits_per_byte=_mean([step.nats for step in done]) / math.log(2),
            heldout_bits_per_byte=heldout,
            patch_size=_mean(sizes) if sizes else None,
            lr=steps[-1].lr if steps else 0.0,
            grad_norm=_mean([step.grad_norm for step in done]),
            skipped=self.trainer.skipped,
        )
        if self.folder is not None:
            self.folder.log({"event": "train", **_finite(asdict(self.report))})
        if self.on_progress is not None:
            self.on_progress(self.report)
        return self.report

    def _finish(self) -> Report:
        """The last report, with an evaluation; a run that was finished before takes no step."""
        return self._report(self._evaluate() if self._evaluates else None)

    def _checkpoint(self) -> None:
        if self.folder is None:
            return
        start = time.monotonic()
        state = self.trainer.state()
        more = {"seconds": self.budget.seconds, "evals_done": self.evals_done}
        self.folder.save(self.trainer.model, TrainerState(state.tensors, {**state.values, **more}))
        self.budget.checkpoint_seconds = time.monotonic() - start

    def _checkpoint_bytes(self) -> int:
        """Weights and two moments."""
        return sum(3 * p.numel() * p.element_size() for p in self.trainer.model.parameters())

    def _restore(self, state: TrainerState) -> float:
        """Returns the seconds that were spent before."""
        self.trainer.restore(state)
        self.evals_done = state.values["evals_done"]
        return float(state.values["seconds"])

    def _stopped(self) -> str:
        """Save, and say where and how to go on."""
        at = f"stopped after {self.trainer.steps} steps"
        if self.folder is None:
            return at
        self._checkpoint()
        return f"{at}; checkpoint in {self.folder.checkpoint}, continue with --resume"


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else math.nan


def _finite(values: dict[str, Any]) -> dict[str, Any]:
    """What JSON can hold: None and NaN left out."""
    return {
        name: value
        for name, value in values.items()
        if value is not None and not (isinstance(value, float) and not math.isfinite(value))
    }
