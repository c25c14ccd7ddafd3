"""Texts whose patches a router cuts: what a step has to know of the bytes and patches before it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from blt.model.routing import HALF, Router, smooth


@dataclass(frozen=True)
class Trail:
    """The end of what was read."""

    state: Tensor  # [d] of the encoder, at the last byte
    smoothed: Tensor  # [global_dim] of the last complete patch, and of those before it

    def after(self, state: Tensor, smoothed: Tensor | None) -> Trail:
        """With a byte more, which has completed a patch where there is a ``smoothed``."""
        return Trail(state, self.smoothed if smoothed is None else smoothed)


def next_probabilities(
    router: Router, trails: Sequence[Trail], x: Tensor, positions: Tensor
) -> Tensor:
    """How likely a patch starts after each of n new bytes of B texts  # [B, n].

    Args:
        x: [B * n, d] encoder states of the new bytes.
        positions: [B * n] of them.
    """
    rows = x.unflatten(0, (len(trails), -1))
    states = torch.stack([trail.state for trail in trails])[:, None]
    before = torch.cat((states, rows[:, :-1]), 1).flatten(0, 1)
    return router.probabilities(x, before, positions).view(len(trails), -1)


def next_smoothed(
    trails: Sequence[Trail], counts: Sequence[int], latents: Tensor, weights: Sequence[float]
) -> Tensor:
    """Output of the global transformer for new patches, each mixed with those before it  # [P, D].

    Args:
        counts: new patches of each text.
        latents: [P, D] of them, text after text.
        weights: [P] how much of each is its own.
    """
    rows: list[Tensor] = []
    shares: list[float] = []
    new: list[int] = []  # rows of new patches; the others are what goes before them
    done = 0
    for trail, part in zip(trails, latents.split(list(counts)), strict=True):
        new += range(len(shares) + 1, len(shares) + 1 + len(part))
        rows += [trail.smoothed[None], part]
        shares += [1.0, *weights[done : done + len(part)]]
        done += len(part)
    p = torch.tensor(shares, dtype=torch.float32, device=latents.device)
    return smooth(torch.cat(rows), p)[new]


def weight(p: float) -> float:
    """How much of a patch that ends where p says is its own."""
    return p if p >= HALF else 1.0  # then it ends for another reason
