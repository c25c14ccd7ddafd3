"""Shares of a device's peak that training reaches (MFU): those that were measured.

``measured.json`` is a list of rows, one for each job and size of a pass:

    {"device": "H100", "date": "2026-11-28", "torch": "2.11.0+cu130", "job": "training, 1B",
     "ids": 32768, "patch_size": 4.5, "bytes_per_second": 75600, "mfu": 0.216}

``device`` is a name of :data:`blt.machine.hardware.KINDS`, ``ids`` are those of a pass, and ``job``
begins with "training", and ends with "not compiled" where nothing was; other rows, and other keys,
are left alone. Of two rows of the same job, ids and patch size the compiled one counts, as training
is on a GPU, then the one of the very device, then the newer one.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any

from blt.machine.hardware import KINDS

ASSUMED = 0.4  # where nothing like it was measured
ALIKE = 0.05  # a pass that differs by so little is one that was measured
PLAIN = ", not compiled"


@dataclass(frozen=True)
class Share:
    """A share of the peak, 0 to 1, and where it is from, in words."""

    mfu: float
    source: str


@dataclass(frozen=True)
class _Point:
    flops: float  # of a pass
    mfu: float
    about: str


def expected_share(device: str | None, flops: float, compiled: bool | None = None) -> Share:
    """The share of its peak that a device reaches in training.

    It depends on how much there is to do in a pass, forward and backward: launching kernels takes
    as long for a small one. So shares in between are interpolated, both in logarithms; below the
    smallest pass that was measured its time is taken, above the largest its share.

    Args:
        device: a name of :data:`blt.machine.hardware.KINDS`; None: one that is not known.
        flops: of a pass on one device.
        compiled: by torch.compile, or not; where nothing was measured so, and for None, what was
            measured otherwise counts too.
    """
    points = _points(_rows(), device, compiled)
    if not points:
        return Share(ASSUMED, "assumed: nothing was measured on such devices")
    below = [point for point in points if point.flops <= flops]
    above = [point for point in points if point.flops >= flops]
    nearest = min(points, key=lambda point: abs(math.log(point.flops / flops)))
    if abs(nearest.flops / flops - 1) < ALIKE:
        return Share(nearest.mfu, f"measured on {nearest.about}")
    if not below:
        smallest = above[0]
        share = smallest.mfu * flops / smallest.flops
        return Share(share, f"a pass takes as long as a larger one measured on {smallest.about}")
    if not above:
        return Share(below[-1].mfu, f"that of a smaller pass, measured on {below[-1].about}")
    low, high = below[-1], above[0]
    at = math.log(flops / low.flops) / math.log(high.flops / low.flops)
    share = math.exp((1 - at) * math.log(low.mfu) + at * math.log(high.mfu))
    return Share(share, f"between those measured on {low.about} and {high.about}")


@cache
def _rows() -> tuple[dict[str, Any], ...]:
    return tuple(json.loads((resources.files("blt.machine") / "measured.json").read_text()))


def _points(
    rows: Sequence[dict[str, Any]], device: str | None, compiled: bool | None
) -> list[_Point]:
    """What was measured on devices with the same peak, by the size of the pass."""
    peak = None if device is None else KINDS[device].flops
    alike = [
        row
        for row in rows
        if KINDS[row["device"]].flops == peak and row["job"].startswith("training")
    ]

    if compiled is not None:
        alike = [row for row in alike if row["job"].endswith(PLAIN) != compiled] or alike

    def worth(row: dict[str, Any]) -> tuple[bool, bool, str]:
        return not row["job"].endswith(PLAIN), row["device"] == device, row["date"]

    alike.sort(key=worth)  # the best last
    best = {(row["job"].removesuffix(PLAIN), row["ids"], row["patch_size"]): row for row in alike}
    points = [_point(row) for row in best.values()]
    return sorted(points, key=lambda point: (point.flops, point.mfu))


def _point(row: dict[str, Any]) -> _Point:
    flops = row["mfu"] * KINDS[row["device"]].flops / row["bytes_per_second"] * row["ids"]
    about = f"{row['device']}, {row['date']}, torch {row['torch']} ({row['job']}, {row['ids']} ids)"
    return _Point(flops, row["mfu"], about)
