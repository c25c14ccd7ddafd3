"""The training loop: steps, reports, evaluations and checkpoints within a budget."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from blt.data.loader import Loader
from blt.errors import UserError
from blt.lm import LanguageModel
from blt.scoring.bits import measured
from blt.texts.pieces import choose
from blt.train.budget import Budget
from blt.train.hooks import Hooks
from blt.train.interrupt import StopRequest
from blt.train.parallel import Parallel
from blt.train.run import RunFolder, TrainerState
from blt.train.sections import TrainConfig
from blt.train.trackers import Track, numbers, trackers
from blt.train.trainer import Step, Trainer, read

SAMPLE_BYTES = 300
GPU_LOG_EVERY = 10  # steps: what a report says is read from the device, which then has no work
MOST_PREPARED = 0.5  # of a budget in seconds: what takes more before the first step is worth a word

log = logging.getLogger("blt")


@dataclass(frozen=True)
class Report:
    """Where a training stands; means are over the steps since the report before."""

    step: int
    progress: float  # 0..1
    seconds: float  # wall clock since the start, interruptions left out
    seconds_left: float  # estimate
    bytes_seen: int
    flops: float  # so far, of training and of the entropy model's forward
    bytes_per_second: float  # of the steps alone, without evaluations and checkpoints
    bits_per_byte: float  # of the training batches
    heldout_bits_per_byte: float | None  # where this step was evaluated
    heldout_by_source: dict[str, float] | None  # the same, where there are several sources
    patch_size: float | None  # mean bytes per patch
    lr: float
    grad_norm: float
    skipped: int  # steps so far that were left out: loss or gradient not finite, or exploding
    waited: float  # share of the time of steps that went by waiting for batches
    mfu: float | None  # share of the devices' peak that steps reached, entropy model left out
    memory: int  # bytes at the peak, of the main process's device
    ended_by: str | None = None  # of a run that had ended before: what has to be raised to go on


OnProgress = Callable[[Report], None]


class Latest:
    """Passes reports on, and keeps the last; None until there is one."""

    def __init__(self, on_progress: OnProgress) -> None:
        self.on_progress = on_progress
        self.report: Report | None = None

    def __call__(self, report: Report) -> None:
        self.report = report
        self.on_progress(report)


def fit(
    model: LanguageModel,
    loader: Loader,
    config: TrainConfig,
    *,
    heldout: Mapping[str, Sequence[bytes]] | None = None,
    run: RunFolder | None = None,
    resume: bool = False,
    on_progress: OnProgress | None = None,
    spent: float = 0.0,
    score_after: int = 0,
    parallel: Parallel | None = None,
    hooks: Hooks | None = None,
) -> Report:
    """Train ``model`` in place.

    Args:
        model: a BLT or byte transformer, on the device to train on.
        loader: batches.
        config: how long and how.
        heldout: documents of each source to evaluate on; none: no evaluations.
        run: folder for metrics and checkpoints; None: nothing is written.
        resume: go on from the run's checkpoint, of which ``model`` was loaded.
        on_progress: called with every report.
        spent: seconds of the budget that are gone already.
        score_after: bytes that the caller will score with the model, within the same budget.
        parallel: the processes that train ``model``, which is divided among them.
        hooks: what the training does besides; they have begun.

    Returns:
        the last report.

    Raises:
        UserError: loss or gradients stay non-finite; the last checkpoint is whole.
        KeyboardInterrupt: after Ctrl-C or SIGTERM, once a checkpoint is written; says where.
    """
    trainer = Trainer(model, loader, config, parallel, hooks)
    return Loop(trainer, heldout or {}, run, on_progress).run(resume, spent, score_after)


class Loop:
    """A training from its first step, or that after its checkpoint, to its end.

    Args:
        trainer: takes the steps.
        heldout: as of :func:`fit`, like all that follows, here and in :meth:`run`.
    """

    def __init__(
        self,
        trainer: Trainer,
        heldout: Mapping[str, Sequence[bytes]],
        run: RunFolder | None,
        on_progress: OnProgress | None,
    ) -> None:
        self.trainer, self.config, self.folder = trainer, trainer.config, run
        self.heldout = self._chosen(heldout)
        self.on_progress = on_progress if trainer.parallel.main else None
        self.trackers: list[Track] = []
        usual = 1 if trainer.model.device.type == "cpu" else GPU_LOG_EVERY
        self.log_every = self.config.log_every or usual
        self._scored: dict[str, int] = {}  # bytes of each source that the last evaluation was of
        self.evals_done = 0
        self.report: Report | None = None
        self._since: list[Step] = []  # steps since the last report

    def run(self, resume: bool, spent: float, score_after: int) -> Report:
        """Returns the last report; raises what :func:`fit` does."""
        trainer = self.trainer
        prepared = spent
        if resume and self.folder is not None and self.folder.has_checkpoint:
            before, prepared = self._restore(self.folder)
            spent += before
            self.folder.forget_after(trainer.steps)
        if self.folder is not None and trainer.parallel.main:
            self.trackers = trackers(self.config.trackers, self.folder.path, trainer.steps)
        if self.config.seconds is not None and prepared > MOST_PREPARED * self.config.seconds:
            log.warning(
                "%.0f of %g seconds had gone before the first step; give train.seconds more",
                *(prepared, self.config.seconds),
            )
        self.budget = Budget(
            self.config,
            spent,
            prepared=prepared,
            scored_bytes=score_after + (self._eval_bytes if self._evaluates else 0),
            checkpoint_bytes=self._checkpoint_bytes() if self.folder else 0,
        )
        # A run that is to go on for longer was further along its schedule before.
        self.evals_done = min(self.evals_done, int(self._progress() * self.config.evals))
        trainer.model.train()
        try:
            with StopRequest() as stop:
                if self._steps(stop):  # a signal that comes again must not cut off the checkpoint
                    raise KeyboardInterrupt(self._stopped())
        finally:
            trainer.loader.close()
            if self.folder is not None:
                self.folder.finish_saving()
        trainer.model.eval()
        report = self._finish()
        if trainer.steps == 1 and report.lr == 0 and report.ended_by is None:
            log.warning(
                "the only step had a learning rate of 0, where warming up begins: nothing was "
                "learned; give it a larger budget, or train.steps=1 to do without warming up"
            )
        self._checkpoint()
        return report

    def _steps(self, stop: StopRequest) -> bool:
        """Until the end, or until a signal came: then True."""
        self._saved = time.monotonic()
        progress, due, save, stopped = self._decide(stop)
        begun = self.trainer.steps > 0 or self.config.steps == 0  # a first step is always taken
        while not stopped and (not begun or progress < 1):
            begun = True
            self._since.append(self.trainer.step(progress))
            if self.trainer.model.device.type == "cpu":  # where looking costs nothing
                self._check()
            self.budget.stepped(self._since[-1].seconds, self._since[-1].flops)
            progress, due, save, stopped = self._decide(stop)
            if progress == 1:
                break  # the last report comes with the last evaluation
            if due:
                self.evals_done = int(progress * self.config.evals)
                self._report(self._evaluate())
            elif self.trainer.steps % self.log_every == 0:
                self._report(None)
            if save:
                self._checkpoint(wait=False)
                self._saved = time.monotonic()
        return stopped and progress < 1

    def _decide(self, stop: StopRequest) -> tuple[float, bool, bool, bool]:
        """Progress, and whether to evaluate, to save, to stop; the same in all processes."""
        progress = self._progress()
        due = int(progress * self.config.evals) > self.evals_done and self._affords_evaluation()
        save = time.monotonic() - self._saved > self.config.checkpoint_every_seconds
        decided = self.trainer.parallel.agree([progress, due, save, stop.wanted])
        return decided[0], bool(decided[1]), bool(decided[2]), bool(decided[3])

    @property
    def _context_bytes(self) -> int:
        return self.trainer.loader.loader.context_bytes

    def _chosen(self, heldout: Mapping[str, Sequence[bytes]]) -> dict[str, list[bytes]]:
        """What is evaluated of each source; one of which nothing is asked for is left out."""
        found = {
            name: choose(texts, self.config.eval_bytes // len(heldout), self._context_bytes)
            for name, texts in heldout.items()
        }
        empty = [name for name, pieces in found.items() if not any(pieces)]
        if empty and self.trainer.parallel.main:
            log.warning(
                "train.eval_bytes = %d: is not evaluated, as nothing is learned of what is held "
                "out within so many bytes: %s",
                *(self.config.eval_bytes, ", ".join(empty)),
            )
        return {name: pieces for name, pieces in found.items() if name not in empty}

    @property
    def _evaluates(self) -> bool:
        return bool(self.heldout) and self.config.evals > 0

    @property
    def _eval_bytes(self) -> int:
        return sum(len(text) for texts in self.heldout.values() for text in texts)

    def _affords_evaluation(self) -> bool:
        step_bytes = self.trainer.step_bytes
        return self._evaluates and self.budget.affords_evaluation(self._eval_bytes, step_bytes)

    def _progress(self) -> float:
        trainer = self.trainer
        return self.budget.progress(
            trainer.steps, trainer.step_bytes, trainer.flops, trainer.bytes_seen, trainer.passes
        )

    def _evaluate(self) -> dict[str, float]:
        """Held-out bits per byte of each source."""
        start, trainer = time.monotonic(), self.trainer
        trainer.model.eval()
        found = {
            name: measured(trainer.model, choose(pieces, None, self._context_bytes), trainer.dtype)
            for name, pieces in self.heldout.items()
        }
        self._scored = {name: score.num_bytes for name, score in found.items()}
        trainer.model.train()
        self.budget.evaluated(self._eval_bytes, time.monotonic() - start)
        return {name: score.bits_per_byte for name, score in found.items()}

    def _overall(self, by_source: dict[str, float]) -> float:
        """Bits per byte of all held-out text together."""
        bits = sum(value * self._scored[name] for name, value in by_source.items())
        return bits / max(1, sum(self._scored.values()))

    def _report(self, heldout: dict[str, float] | None) -> Report:
        steps, self._since = self._since, []
        read(steps)
        self._check()
        now = self.budget.seconds
        done = [step for step in steps if not step.skipped]
        sizes = [step.patch_size for step in done if step.patch_size is not None]
        speed = sum(step.num_bytes for step in steps) / max(1e-9, sum(x.seconds for x in steps))
        self.report = Report(
            step=self.trainer.steps,
            progress=self._progress(),
            seconds=now,
            seconds_left=self.budget.seconds_left(self.trainer.steps, self.trainer.flops),
            bytes_seen=self.trainer.bytes_seen,
            flops=self.trainer.flops,
            bytes_per_second=speed,
            bits_per_byte=_mean([step.nats for step in done]) / math.log(2),
            heldout_bits_per_byte=None if heldout is None else self._overall(heldout),
            heldout_by_source=heldout if heldout and len(heldout) > 1 else None,
            patch_size=_mean(sizes) if sizes else None,
            lr=steps[-1].lr if steps else 0.0,
            grad_norm=_mean([step.grad_norm for step in done]),
            skipped=self.trainer.skipped,
            waited=sum(step.waited for step in steps) / max(1e-9, sum(x.seconds for x in steps)),
            mfu=self.trainer.meter.mfu(_mean(sizes) if sizes else None, speed),
            memory=self.trainer.meter.memory,
            ended_by=None if steps else self.budget.nearest,
        )
        if steps:  # otherwise the run had ended before
            self._log(self.report, heldout is not None)
        if self.on_progress is not None:
            self.on_progress(self.report)
        return self.report

    def _check(self) -> None:
        """Have too many steps in a row been left out? Says what is there to go on from."""
        try:
            self.trainer.check()
        except UserError as error:
            saved = self.folder is not None and self.folder.has_checkpoint
            from_before = "the last checkpoint is from before" if saved else "nothing was saved"
            raise UserError(f"{error}; {from_before}") from None

    def _log(self, report: Report, evaluated: bool) -> None:
        if self.folder is not None:
            self.folder.log({"event": "train", **_finite(asdict(report))})
        for track in self.trackers:
            track(report.step, numbers(report))
        if evaluated and self.folder is not None:
            self._log_samples(self.folder)

    def _log_samples(self, folder: RunFolder) -> None:
        """What the model writes by now; left out where no process has all weights."""
        model, prompts = self.trainer.model, self.config.sample_prompts
        if self.trainer.parallel.mesh is not None:
            return
        model.eval()
        try:
            for text in model.generate(list(prompts), max_bytes=SAMPLE_BYTES, temperature=0.8):
                event = {"event": "sample", "step": self.trainer.steps}
                folder.log({**event, "prompt": text.prompt.decode(), "text": text.text})
        except UserError:
            pass  # a rule that cannot cut a text that is being written
        except RuntimeError as error:  # not finite, or out of memory: the training may go on
            log.warning("step %d: no samples of what it writes: %s", self.trainer.steps, error)
        model.train()

    def _finish(self) -> Report:
        """The last report, with an evaluation; a run that was finished before takes no step."""
        return self._report(self._evaluate() if self._evaluates else None)

    def _checkpoint(self, wait: bool = True) -> None:
        if self.folder is None:
            return
        state = self.trainer.state()
        clock = {"seconds": self.budget.seconds, "prepared_seconds": self.budget.prepared}
        more = {**clock, "evals_done": self.evals_done}
        state = TrainerState(state.tensors, {**state.values, **more})
        self.folder.save(self.trainer.model, state, self.config.keep_checkpoints, wait)
        if self.folder.save_seconds > 0:
            self.budget.checkpoint_seconds = self.folder.save_seconds

    def _checkpoint_bytes(self) -> int:
        """Weights and two moments."""
        return sum(3 * p.numel() * p.element_size() for p in self.trainer.model.parameters())

    def _restore(self, run: RunFolder) -> tuple[float, float]:
        """Returns the seconds that were spent before, and those of them before the first step."""
        self.trainer.restore(run)
        values = run.trainer_values()
        self.evals_done = values["evals_done"]
        # Earlier versions counted preparations into the schedule.
        return float(values["seconds"]), float(values.get("prepared_seconds", 0.0))

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
