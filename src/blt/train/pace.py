"""A line where a training is far slower than ``blt plan`` expects of its machine."""

from __future__ import annotations

import logging
import os

import torch

from blt.machine.hardware import kind_of, peak_flops
from blt.machine.precision import bfloat16_is_faster
from blt.machine.runtime import processors
from blt.machine.shares import expected_share
from blt.model.compiling import is_compiled
from blt.train.loop import OnProgress, Report
from blt.train.meter import Meter

FAR = 1 / 3  # of the expected speed: what is slower is worth a line
WAITED = 0.3  # of the time of steps: more is worth a word
AFTER = 20  # steps behind the first report, before which a model is compiled and files are opened

log = logging.getLogger("blt")


class Pace:
    """Passes reports on, and logs a warning where steps are far slower than planned, once.

    Args:
        meter: of the training.
        show: where the reports go.
        batch_bytes: ids of a pass on one device.
    """

    def __init__(self, meter: Meter, show: OnProgress | None, batch_bytes: int) -> None:
        self.meter, self.show, self.batch_bytes = meter, show, batch_bytes
        self._said = False
        self._first: int | None = None  # step of the first report

    def __call__(self, report: Report) -> None:
        if self.show is not None:
            self.show(report)
        self._first = report.step if self._first is None else self._first
        if self._said or report.step - self._first < AFTER or report.bytes_per_second == 0:
            return
        expected = self._expected(report.patch_size)
        if expected is not None and report.bytes_per_second < FAR * expected:
            self._said = True
            log.warning(
                "%.1f kB/s at step %d, less than a third of the %.1f kB/s that `blt plan` expects "
                "of this machine; likely causes: %s",
                *(report.bytes_per_second / 1000, report.step, expected / 1000),
                "; ".join(self._causes(report)),
            )

    def _expected(self, patch_size: float | None) -> float | None:
        """Bytes per second; None where the machine's peak is not known."""
        peak = peak_flops(self.meter.model.device, self.meter.dtype)
        if peak is None:
            return None
        training = self.meter.flops_per_byte(patch_size)
        kind = kind_of(self.meter.model.device)
        name = None if kind is None else kind.name
        compiled = is_compiled(self.meter.model)
        mfu = expected_share(name, training * self.batch_bytes, compiled).mfu
        return mfu * peak * self.meter.world / (training + self.meter.entropy_flops_per_byte)

    def _causes(self, report: Report) -> list[str]:
        """What is known to be so; otherwise what is left."""
        device, found = self.meter.model.device, []
        if report.waited > WAITED:
            found.append(f"steps wait for batches ({report.waited:.0%} of their time)")
        if device.type == "cpu":
            threads, free, load = torch.get_num_threads(), processors(), os.getloadavg()[0]
            if load > free + 1:
                found.append(f"the machine is busy (load {load:.1f} on {free} processors)")
            if threads > free:
                found.append(f"{threads} threads for {free} processors (OMP_NUM_THREADS={free})")
        if self.meter.dtype == torch.bfloat16 and not bfloat16_is_faster(device):
            found.append("bfloat16 is only emulated here (train.precision=float32)")
        return found or ["steps too small to fill the machine (data.batch_bytes, model)"]
