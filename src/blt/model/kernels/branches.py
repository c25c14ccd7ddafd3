"""Documents that begin alike, with what they share there once: attention along branches.

A flat stream holds runs of positions. Each run goes on where its parent ends, so a document is the
way from a root to a leaf, and several documents share the runs that their ways share.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor

from blt.model.kernels.blocks import ALIGNED, BLOCK, SCORES
from blt.model.kernels.causal import of_each_head
from blt.model.packing import Spans

KEYS_ALIGNED = 64  # keys of a block are padded to a multiple of so many, for few shapes


@dataclass(frozen=True)
class Branches:
    """Runs of a flat stream of N rows, parents before their children."""

    parents: tuple[int, ...]  # [R] run that each one goes on; -1: it begins a document
    offsets: tuple[int, ...]  # [R + 1] from 0 to N
    starts: tuple[int, ...]  # [R] position in its document of each run's first row
    device: torch.device

    @cached_property
    def paths(self) -> list[Tensor]:
        """Rows from the document's start to the end of each run  # [R], each [T]."""
        paths: list[Tensor] = []
        for parent, (first, end) in zip(self.parents, pairwise(self.offsets), strict=True):
            own = torch.arange(first, end, dtype=torch.int64, device="cpu")
            paths.append(own if parent < 0 else torch.cat((paths[parent], own)))
        return paths

    @cached_property
    def spans(self) -> Spans:
        """One span over all, with positions in documents."""
        lengths = (end - first for first, end in pairwise(self.offsets))
        parts = [
            torch.arange(s, s + n, dtype=torch.int64, device="cpu")
            for s, n in zip(self.starts, lengths, strict=True)
        ]
        positions = torch.cat(parts) if parts else torch.empty(0, dtype=torch.int64, device="cpu")
        return Spans.along(positions.to(self.device))

    @cached_property
    def previous(self) -> Tensor:
        """The row before each in its document; N where there is none  # [N]."""
        rows = torch.arange(self.offsets[-1], dtype=torch.int64, device="cpu") - 1
        for parent, (first, end) in zip(self.parents, pairwise(self.offsets), strict=True):
            before = self.paths[parent] if parent >= 0 else rows[:0]
            if first < end:
                rows[first] = before[-1] if len(before) else len(rows)
        return rows.to(self.device)

    def attention(self, window: int | None) -> BranchAttention:
        """For layers that see so many positions back; None: all of them."""
        return BranchAttention(list(_blocks(self, window)))


@dataclass(frozen=True)
class _Block:
    """Queries of several runs that are attended to together, padded to one shape."""

    rows: Tensor  # [B, n] the last one repeated
    keys: Tensor  # [B, m] padded in front
    visible: Tensor  # [B, 1, n, m] bool


class BranchAttention:
    """Attention of one stack's layers: each position sees its own document's past."""

    def __init__(self, blocks: list[_Block]) -> None:
        self.blocks = blocks

    def attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:  # [N, H, D], q scaled
        out = torch.empty_like(q)
        k, v = of_each_head(q, k, v)
        for block in self.blocks:
            attended = F.scaled_dot_product_attention(
                q[block.rows].transpose(1, 2),
                k[block.keys].transpose(1, 2),
                v[block.keys].transpose(1, 2),
                attn_mask=block.visible,
                scale=1.0,
            )
            out[block.rows] = attended.transpose(1, 2)
        return out


def _blocks(branches: Branches, window: int | None) -> Iterator[_Block]:
    """Pieces of runs, those of like shape together."""
    by_shape: dict[tuple[int, int], list[tuple[int, int, int, int]]] = {}
    for run, (first, end) in enumerate(pairwise(branches.offsets)):
        for row in range(first, end, BLOCK):
            count = min(BLOCK, end - row)
            position = branches.starts[run] + row - first
            oldest = 0 if window is None else max(0, position - window + 1)
            shape = (-(-count // ALIGNED) * ALIGNED,
                     -(-(position + count - oldest) // KEYS_ALIGNED) * KEYS_ALIGNED)  # fmt: skip
            by_shape.setdefault(shape, []).append((run, position, count, oldest))
    for (n, m), pieces in by_shape.items():
        together = max(1, SCORES // (n * m))
        for at in range(0, len(pieces), together):
            yield _block(branches, window, n, m, pieces[at : at + together])


def _block(
    branches: Branches,
    window: int | None,
    n: int,
    m: int,
    pieces: list[tuple[int, int, int, int]],
) -> _Block:
    """The block for pieces (run, first position, count, oldest position that is seen)."""
    asking = torch.empty(len(pieces), n, dtype=torch.int64, device="cpu")  # positions
    rows = torch.empty_like(asking)
    asked = torch.full(
        (len(pieces), m), torch.iinfo(torch.int64).max // 2, dtype=torch.int64, device="cpu"
    )  # in no one's past
    keys = torch.zeros_like(asked)
    for index, (run, position, count, oldest) in enumerate(pieces):
        path, end = branches.paths[run], position + count
        last = torch.arange(position, position + n, dtype=torch.int64, device="cpu").clamp_max_(
            end - 1
        )
        asking[index], rows[index] = last, path[last]
        asked[index, m - (end - oldest) :] = torch.arange(
            oldest, end, dtype=torch.int64, device="cpu"
        )
        keys[index, m - (end - oldest) :] = path[oldest:end]
    back = asking[:, :, None] - asked[:, None]
    visible = back >= 0 if window is None else (back >= 0) & (back < window)
    device = branches.device
    return _Block(rows.to(device), keys.to(device), visible[:, None].to(device))
