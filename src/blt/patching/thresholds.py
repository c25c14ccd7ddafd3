"""θ for a wanted patch size, from entropies that were observed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from blt.errors import UserError
from blt.patching.deciding import decide, split_long
from blt.patching.rules import PatchingConfig
from blt.patching.tables import lookup_key, order_of
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


def table_threshold(
    values: Tensor, documents: Sequence[Tensor], target: float, longest: int | None = None
) -> float:
    """θ for which the table ``values > θ`` cuts patches of the size that is nearest to ``target``.

    Args:
        values: [260 ** n] nats after each n-gram.
        documents: ids [T] each, BOS first.
        target: bytes per patch.
        longest: ``max_patch_length``.

    Raises:
        UserError: no bytes, or a target below 1.
    """
    check_size(target)
    if sum(map(len, documents)) <= len(documents):
        raise UserError("no bytes to calibrate the patching threshold on")
    order = order_of(values)
    # Of all documents, one behind the other, how unsure the table is of each position  # [N]
    before = torch.cat([_looked_up(values, ids, order) for ids in documents])

    def measured(threshold: float) -> float:
        starts = before > threshold
        if longest is not None:  # a document's first position starts a patch
            starts = split_long(starts, longest)
        return mean_patch_size(len(starts), int(starts.sum()), len(documents))

    found = torch.unique(before[before < torch.inf])
    thresholds = [-1.0, *found.tolist()]  # the first cuts everywhere, the last nowhere
    low, high = 0, len(thresholds) - 1
    while low + 1 < high:
        middle = (low + high) // 2
        low, high = (middle, high) if measured(thresholds[middle]) < target else (low, middle)
    both = (thresholds[low], thresholds[high])
    return min(both, key=lambda threshold: abs(measured(threshold) - target))


def _looked_up(values: Tensor, ids: Tensor, order: int) -> Tensor:
    """Nats that decide whether each position starts a patch; the first two always do  # [T]."""
    known = values[lookup_key(ids, order)][:-1]
    known = torch.cat((known.new_full((1,), torch.inf), known))
    known[:2] = torch.inf
    return known


def check_target(config: PatchingConfig, target: float) -> None:
    """Refuse what has no threshold, or a size that no patch can have."""
    check_has_threshold(config)
    check_size(target)


def check_has_threshold(config: PatchingConfig) -> None:
    """Refuse what has no threshold."""
    if not config.needs_entropies:
        raise UserError(
            f"only entropy rules have a threshold, not {config.rule!r}; leave it out, or name a "
            "model that cuts by entropy"
        )


def check_size(target: float) -> None:
    """Refuse a size that no patch can have."""
    if target < 1:
        raise UserError(f"target patch size must be at least 1 byte, got {target}")
