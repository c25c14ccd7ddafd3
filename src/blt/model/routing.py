"""Patches that the model learns to cut: H-Net's routing (arXiv 2507.07955) for the rule "learned".

A router compares what the encoder made of each byte with what it made of the one before: where they
differ, a patch ends. Cutting has no gradient, so the router learns from two things that its
probabilities weigh: how much of a patch is its own and how much that of the patches before it, and
how much a byte trusts what it sees of its patch.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from blt.model.config import Config
from blt.model.layers import Linear
from blt.model.packing import Laid, PackedBatch, Spans, on

HALF = 0.5  # a patch starts where it is at least as likely as not
REMEMBERED = 32  # patches: each counts at most half in the next, so those before are below rounding


@dataclass(frozen=True)
class Routes:
    """Where patches lie, and how sure the router was.

    Attributes:
        batch: documents, cut.
        p: probability that a patch starts after each byte; 1 after BOS  # [N] float32
    """

    batch: PackedBatch
    p: Tensor

    @property
    def opens(self) -> Tensor:
        """Does a patch start after each byte?  # [N] bool"""
        return self.batch.decoder_patch_ids == self.batch.patch_ids

    def smoothed(self, latents: Tensor) -> Tensor:
        """Output of the global transformer → each patch mixed with those before it  # [P, D]."""
        p = self.p[self.batch.patch_offsets[1:] - 1]  # at the end of each patch
        return smooth(latents, torch.where(p >= HALF, p, 1.0))  # 1: it ends for another reason

    @property
    def confidence(self) -> Tensor:
        """1 for every byte, with the gradient of how likely its decision was  # [N]."""
        chosen = torch.where(self.p >= HALF, self.p, 1 - self.p)
        chosen = torch.where(self.opens == (self.p >= HALF), chosen, 1.0)  # the router's own alone
        return 1 + (chosen - chosen.detach())

    def ratio_loss(self, size: float) -> Tensor:
        """What presses patches towards ``size`` bytes: 1 where they have it, else more  # [].

        Args:
            size: more than 1.
        """
        documents = len(self.batch.documents.offsets) - 1  # the BOS of each is not text
        count = max(1, len(self.p) - documents)
        share = (self.opens.sum() - documents) / count  # of bytes that a patch starts after
        mean = (self.p.sum() - documents) / count
        return size / (size - 1) * ((size - 1) * share * mean + (1 - share) * (1 - mean))


class Router(nn.Module):
    """How likely a patch starts after each byte: (1 - cos(W_q x_t, W_k x_{t-1})) / 2."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        dim = config.local_dim
        self.query, self.key = Linear(dim, dim), Linear(dim, dim)
        self.max_patch_length = config.patching.max_patch_length
        for weight in (self.query.weight, self.key.weight):
            if not weight.is_meta:
                nn.init.eye_(weight)

    def forward(self, x: Tensor, batch: PackedBatch | Laid) -> Routes:
        """Encoder states x [N, d] → where patches start; a batch that is cut stays as it is."""
        p = self.along(x, batch.documents)
        if isinstance(batch, Laid):
            batch = cut(p.detach(), batch, self.max_patch_length)
        return Routes(batch, p)

    def along(self, x: Tensor, documents: Spans) -> Tensor:
        """Encoder states x [N, d] of whole documents → probabilities [N] float32."""
        return self.probabilities(x, torch.cat((x[:1], x[:-1])), documents.positions)

    def probabilities(self, x: Tensor, before: Tensor, positions: Tensor) -> Tensor:
        """States of bytes and of those before them [N, d], positions [N] → [N] float32."""
        q = F.normalize(self.query(x).float(), dim=-1)
        k = F.normalize(self.key(before).float(), dim=-1)
        p = ((1 - (q * k).sum(-1)) / 2).clamp(0, 1)
        return torch.where(positions == 0, 1.0, p)


@contextmanager
def routes_of(model: nn.Module) -> Iterator[list[Routes]]:
    """What the router of a model finds while this lasts; a model without one finds nothing."""
    found: list[Routes] = []
    router = getattr(model, "router", None)
    if router is None:
        yield found
        return
    watch = router.register_forward_hook(lambda _module, _inputs, routes: found.append(routes))
    try:
        yield found
    finally:
        watch.remove()


def cut(p: Tensor, batch: Laid, max_patch_length: int | None) -> PackedBatch:
    """Cut documents where p [N] says so; on a GPU the host waits once, for how many patches.

    As :func:`blt.patching.deciding.decide_by` and :func:`blt.model.packing.pack` do, on the device.
    """
    documents, first = batch.documents, batch.documents.positions == 0
    opens = (p >= HALF) | first
    if max_patch_length is not None:
        after = torch.arange(1, len(p) + 1, dtype=torch.int64, device=p.device)
        opened = torch.where(opens, after, 0).cummax(0).values
        opens = opens | ((after - opened) % max_patch_length == 0)
    patch_ids = (opens.roll(1) | first).cumsum(0) - 1
    until = patch_ids[documents.cu_seqlens[1:].long() - 1] + 1  # [D] patches so far
    patches = on(Spans.from_lengths(np.diff(until.cpu().numpy(), prepend=0)), p.device)
    numbers = torch.arange(patches.offsets[-1] + 1, dtype=torch.int64, device=p.device)
    return PackedBatch(
        ids=batch.ids,
        documents=documents,
        patches=patches,
        patch_ids=patch_ids,
        decoder_patch_ids=patch_ids - 1 + opens,
        patch_offsets=torch.searchsorted(patch_ids, numbers),
        ngrams=batch.ngrams,
    )


def smooth(z: Tensor, p: Tensor) -> Tensor:
    """z̄_j = p_j z_j + (1 - p_j) z̄_{j-1}, all patches at once  # [P, D].

    Args:
        z: [P, D] of patches, document after document.
        p: [P] at least 1/2; 1 for the first patch of a document, which has nothing before it.
    """
    mixed, rest = p[:, None] * z.float(), (1 - p)[:, None]
    reach = 1
    while reach < min(len(z), REMEMBERED):  # each now knows of the last `reach` patches
        mixed = torch.cat((mixed[:reach], mixed[reach:] + rest[reach:] * mixed[:-reach]))
        rest = torch.cat((rest[:reach], rest[reach:] * rest[:-reach]))
        reach *= 2
    return mixed.to(z.dtype)
