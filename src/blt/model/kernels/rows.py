"""How many rows are worked on at once, and how exactly."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise

import torch
from torch import Tensor

SCORED_ROWS = 16384  # of one feed-forward without gradients
FEW_ROWS = 64  # below this, work without gradients is done in as few operations as possible
CHUNK = 2**19  # elements: 2 MB of float32, about a core's cache
FF_CHUNK = 2**21  # more, as matrix products want many rows


def compute_dtype(x: Tensor) -> torch.dtype:
    """The dtype that matrix products take: autocast's, or else that of ``x``."""
    device = x.device.type
    return torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else x.dtype


def is_step(x: Tensor) -> bool:
    """A few rows without gradients: generation, where each operation costs more than its work.

    Never while something is traced: one graph is for few rows and for many.
    """
    if torch.compiler.is_compiling():
        return False
    return not torch.is_grad_enabled() and x.shape[0] <= FEW_ROWS


def is_plain(x: Tensor) -> bool:
    """Written as plain operations: for steps, and for torch.compile, which fuses by itself."""
    return torch.compiler.is_compiling() or is_step(x)


def longest(offsets: Sequence[int]) -> int:
    """Rows of the longest document, of the offsets [documents + 1] of all."""
    return max((end - start for start, end in pairwise(offsets)), default=0)


def chunks(x: Tensor, elements: int = CHUNK) -> Iterator[slice]:
    """Runs of rows whose temporaries stay in a CPU's cache; elsewhere, all rows at once."""
    if x.device.type != "cpu":
        yield slice(None)
        return
    rows = max(1, elements * len(x) // max(1, x.numel()))
    for start in range(0, len(x), rows):
        yield slice(start, start + rows)
