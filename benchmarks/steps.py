"""A training step of each side: forward, loss, backward, clipping, optimiser; patches are given."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F

from benchmarks import shape


def our_step(model: Any, batch: int, length: int, precision: str) -> Callable[[], None]:
    """A step of ours on ``batch`` documents of ``length`` random bytes, on the model's device."""
    # Here, since the other side's process is to hold nothing of ours.
    from blt.model.packing import pack
    from blt.train.optim import clip_gradients, optimizers

    ids, lengths = shape.random_ids(batch, length), shape.random_patches(batch, length)
    device = model.device
    packed = pack(list(ids.to(device)), [d.to(device) for d in shape.decisions(lengths)])
    targets = F.pad(ids[:, 1:], (0, 1), value=-1).flatten().to(device)
    both = optimizers(model, 1e-4, (0.9, 0.95), 0.1)
    parameters = trained(model)

    def step() -> None:
        with shape.numerics(precision, device):
            loss = F.cross_entropy(model(packed).float(), targets, ignore_index=-1)
        loss.backward()
        clip_gradients(parameters, 1.0)
        for optimizer in both:
            optimizer.step()
            optimizer.zero_grad()

    return step


def transformers_step(model: Any, batch: int, length: int, precision: str) -> Callable[[], None]:
    """The same step of ``transformers``' model, with the same patches."""
    device = model.device
    ids = shape.random_ids(batch, length).to(device)
    # The patch that would open next is empty.
    lengths = F.pad(shape.random_patches(batch, length), (0, 1)).to(device)
    parameters = trained(model)
    optimizer = torch.optim.AdamW(parameters, lr=1e-4, fused=True)

    def step() -> None:
        with shape.numerics(precision, device):
            loss = model(input_ids=ids, patch_lengths=lengths, labels=ids, use_cache=False).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        optimizer.zero_grad()

    return step


def trained(model: Any) -> list[torch.nn.Parameter]:
    """The parameters that training changes."""
    return [p for p in model.parameters() if p.requires_grad]
