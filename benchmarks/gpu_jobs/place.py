"""Where a job works, and how it takes time there."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

Found = Iterator[dict[str, Any]]  # what a job yields: results, as soon as it has them


@dataclass(frozen=True)
class Place:
    """A device, and how thoroughly it is measured.

    Attributes:
        smoke: only tiny shapes, to see that everything runs.
        quick: shorter measurements.
        out: folder for what is written besides the tables.
    """

    device: torch.device
    smoke: bool
    quick: bool
    out: Path

    @property
    def measured(self) -> float:
        """Seconds of one measurement, after its warm-up."""
        return 0.02 if self.smoke else 2.0 if self.quick else 4.0

    def sized(self, usual: int, tiny: int) -> int:
        return tiny if self.smoke else usual

    def wait(self) -> None:
        """Until the device has done what it was given."""
        if self.device.type == "cuda":
            torch.cuda.synchronize()

    def timed(self, work: Callable[[], object], count: int = 1) -> float:
        """Seconds of ``count`` repetitions, which the host may prepare ahead of the device."""
        self.wait()
        start = time.perf_counter()
        for _ in range(count):
            work()
        self.wait()
        return time.perf_counter() - start

    def seconds(self, work: Callable[[], object]) -> float:
        """Seconds of one repetition: the mean of many, after one to warm up."""
        self.timed(work)
        count = max(1, min(1000, int(self.measured / self.timed(work))))
        return self.timed(work, count) / count

    def memory(self) -> int:
        """Bytes that are free on the device."""
        if self.device.type == "cuda":
            return torch.cuda.mem_get_info()[0]
        return 2**34
