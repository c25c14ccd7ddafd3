"""How much of a training is done, by steps, by the text read, by the clock, or by FLOPs."""

from __future__ import annotations

import math
import time

from blt.train.sections import TrainConfig

EVAL_SHARE = 0.1  # of the time, for evaluations before the last one
WRITE_SPEED = 2e8  # bytes per second of a checkpoint, until one was measured


class Budget:
    """Share of the training that is done.

    Of a budget in seconds, what was spent before the first step is gone: progress begins at 0 with
    that step, so that learning rates warm up, and goes to 1 in the time that is left. What one
    step, the last checkpoint and what is scored at the end take is set aside, so that all of it
    fits.

    Args:
        config: steps, epochs, bytes, seconds, flops: the first to end ends it.
        spent: seconds used before, by preparations and by the run that is resumed.
        prepared: those of them before the run's first step.
        scored_bytes: what will be scored at the end, by the last evaluation and after it.
        checkpoint_bytes: size of a checkpoint; 0 where none is written.
    """

    def __init__(
        self,
        config: TrainConfig,
        spent: float,
        *,
        prepared: float = 0.0,
        scored_bytes: int,
        checkpoint_bytes: int,
    ) -> None:
        self._config, self.prepared = config, prepared
        self._start = time.monotonic() - spent
        self._scored_bytes = scored_bytes
        self._progress = 0.0
        self.nearest = ""  # the budget that is nearest to its end
        self._evaluating = 0.0  # seconds so far
        self._score_speed = 0.0  # bytes per second, of the last evaluation
        self._fastest_step = math.inf  # seconds; the first steps warm up
        self._step_seconds = 0.0  # of the last one
        self._step_flops = 0.0
        self.checkpoint_seconds = checkpoint_bytes / WRITE_SPEED

    @property
    def seconds(self) -> float:
        """Since the start, what was spent before included."""
        return time.monotonic() - self._start

    def progress(
        self, step: int, batch_bytes: int, flops: float, read: int = 0, passes: float = 0.0
    ) -> float:
        """0..1 after ``step`` steps of ``batch_bytes`` that took ``flops`` together.

        ``read`` bytes of text have been read by then, all of it ``passes`` times. Never less than
        before, or learning rates would rise again: what is set aside of a budget in seconds is an
        estimate.
        """
        shares: dict[str, float] = {}
        if self._config.steps is not None:
            shares["steps"] = step / self._config.steps if self._config.steps else 1.0
        if self._config.epochs is not None:
            shares["epochs"] = passes / self._config.epochs
        if self._config.bytes is not None:
            shares["bytes"] = read / self._config.bytes
        if self._config.seconds is not None:
            left = max(1e-9, self._config.seconds - self.prepared)
            reserve = min(self._reserve(batch_bytes), left / 2)
            shares["seconds"] = (self.seconds - self.prepared) / (left - reserve)
        if self._config.flops is not None:
            shares["flops"] = flops / self._config.flops
        self.nearest = max(shares, key=shares.__getitem__)
        self._progress = max(self._progress, min(1.0, shares[self.nearest]))
        return self._progress

    def seconds_left(self, step: int, flops: float) -> float:
        """Estimate."""
        left = []
        if self._config.steps is not None:
            left.append((self._config.steps - step) * self._step_seconds)
        if self._config.seconds is not None:
            left.append(self._config.seconds - self.seconds)
        if self._config.flops is not None and self._step_flops:
            steps = (self._config.flops - flops) / self._step_flops
            left.append(steps * self._step_seconds)
        if self._config.epochs is not None or self._config.bytes is not None:
            undone = (1 - self._progress) / max(1e-9, self._progress)  # for each step taken
            left.append(step * undone * self._step_seconds)
        return max(0.0, min(left, default=0.0))

    def stepped(self, seconds: float, flops: float) -> None:
        """Take note of a step."""
        self._step_seconds, self._step_flops = seconds, flops
        self._fastest_step = min(self._fastest_step, seconds)

    def evaluated(self, num_bytes: int, seconds: float) -> None:
        """Take note of an evaluation."""
        self._evaluating += seconds
        self._score_speed = num_bytes / max(1e-9, seconds)

    def affords_evaluation(self, num_bytes: int, batch_bytes: int) -> bool:
        """Would evaluations between steps stay a small part of the time, if that is limited?"""
        if self._config.seconds is None:
            return True
        expected = self._evaluating + self._score_seconds(num_bytes, batch_bytes)
        return expected <= EVAL_SHARE * self.seconds

    def _reserve(self, batch_bytes: int) -> float:
        scoring = self._score_seconds(self._scored_bytes, batch_bytes)
        return self._step_seconds + self.checkpoint_seconds + scoring

    def _score_seconds(self, num_bytes: int, batch_bytes: int) -> float:
        # Without a backward pass a byte takes less than half of a step's time.
        speed = self._score_speed or 2 * batch_bytes / max(1e-9, self._fastest_step)
        return num_bytes / speed if speed else 0.0
