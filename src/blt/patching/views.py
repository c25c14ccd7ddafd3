"""A document's boundaries are three views of one thing: starts, patch lengths, patch ids."""

from __future__ import annotations

import torch
from torch import Tensor


def starts_to_lengths(starts: Tensor) -> Tensor:
    """``starts`` [T] bool (starts[0] is True) → patch lengths [P]."""
    first = starts.nonzero().flatten()
    end = first.new_tensor([len(starts)])
    return torch.diff(first, append=end)


def starts_to_ids(starts: Tensor) -> Tensor:
    """``starts`` [T] bool → patch id of every position [T], from 0."""
    return starts.cumsum(0) - 1


def lengths_to_starts(lengths: Tensor) -> Tensor:
    """Patch ``lengths`` [P], all positive → starts [T] bool."""
    starts = torch.zeros(int(lengths.sum()), dtype=torch.bool, device=lengths.device)
    starts[lengths.cumsum(0) - lengths] = True
    return starts


def ids_to_starts(ids: Tensor) -> Tensor:
    """Patch ``ids`` [T] → starts [T] bool."""
    return torch.diff(ids, prepend=ids.new_tensor([-1])) != 0


def mean_patch_size(positions: int, patches: int, documents: int = 1) -> float:
    """Bytes per patch; the BOS of each document, a patch of its own, is not counted."""
    return max(0, positions - documents) / max(1, patches - documents)
