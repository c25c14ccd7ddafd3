"""How long runs take: what a limited time affords, and what a training took alone."""

from __future__ import annotations

import time

import torch

from blt.train.loop import OnProgress, Report

FOR_RUNS = 5 / 6  # of a limited time; the rest is for scoring


class Clock:
    """How much of a limited time is left, and what a run takes of it."""

    def __init__(self, seconds: float | None) -> None:
        self.seconds, self.start = seconds, time.monotonic()
        self.speed: float | None = None  # FLOPs per second of the last run, all around it included

    def note(self, flops: float, seconds: float) -> None:
        """A run took so long."""
        self.speed = flops / seconds

    @property
    def over(self) -> bool:
        """Has a limited time passed?"""
        return self.seconds is not None and time.monotonic() - self.start > self.seconds

    def affords(self, flops: float) -> bool:
        """Would a run end before the time for scoring begins?"""
        if self.seconds is None:
            return True
        left = FOR_RUNS * self.seconds - (time.monotonic() - self.start)
        return left > 0 if self.speed is None else left > flops / self.speed


class Watch:
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
