"""θ for a wanted patch size, from entropies that were observed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from blt.errors import UserError
from blt.patching.deciding import decide
from blt.patching.rules import PatchingConfig
from blt.patching.views import mean_patch_size

Observed = Sequence[tuple[Tensor, Tensor]]  # ids [T], BOS first, and entropies [T] of documents


def threshold_for(documents: Observed, target: float, config: PatchingConfig) -> PatchingConfig:
    """Set θ so that the mean patch size over ``documents`` is the nearest possible to ``target``.

    The mean patch size grows with θ, so bisection over the observed entropies finds it.

    Args:
        documents: pairs of ids [T] and entropies [T] (nats).
        target: bytes per patch.

    Raises:
        UserError: not an entropy rule, no bytes, or a target below 1.
    """
    check_target(config, target)
    if sum(len(ids) for ids, _ in documents) <= len(documents):
        raise UserError("no bytes to calibrate the patching threshold on")

    def measured(threshold: float) -> float:
        trial = replace(config, threshold=threshold)
        starts = torch.cat([decide(trial, ids, entropies)[:-1] for ids, entropies in documents])
        return mean_patch_size(len(starts), int(starts.sum()), len(documents))

    low, high = -20.0, 20.0  # entropies over 260 ids lie in 0..5.6 nats, their rises in -5.6..5.6
    for _ in range(50):
        middle = (low + high) / 2
        low, high = (middle, high) if measured(middle) < target else (low, middle)
    best = min((low, high), key=lambda threshold: abs(measured(threshold) - target))
    return replace(config, threshold=best)


def check_target(config: PatchingConfig, target: float) -> None:
    """Refuse what has no threshold, or a size that no patch can have."""
    if not config.needs_entropies:
        raise UserError(f"only entropy rules have a threshold to calibrate, not {config.rule!r}")
    if target < 1:
        raise UserError(f"target patch size must be at least 1 byte, got {target}")
