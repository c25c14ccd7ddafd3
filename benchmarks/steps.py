"""A training step of each side: forward, loss, backward, clipping, optimiser; patches are given."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks import shape

Forward = Callable[[], Tensor]  # logits of a batch that is at hand


def our_step(model: Any, batch: int, length: int, precision: str) -> Callable[[], None]:
    """A step of ours on ``batch`` documents of ``length`` random bytes, on the model's device."""
    return prepared_step(model, batch, length, precision, compiled=False)


def prepared_step(
    model: Any,
    rows: int,
    context: int,
    precision: str = "bfloat16",
    *,
    patch_size: float = shape.MEAN_PATCH_SIZE,
    recomputed: bool = False,
    compiled: bool | None = None,
) -> Callable[[], None]:
    """A step as ``blt train`` takes it; the one place here that knows how it is put together.

    Args:
        model: a BLT, whose patches are given, or a transformer over bytes or tokens.
        rows: documents, all different.
        context: ids of each.
        patch_size: mean bytes of the patches.
        recomputed: the layers of the global transformer keep only their input for backward.
        compiled: by torch.compile; None: as ``blt train`` does on the model's device.
    """
    # Here, since the other side's process is to hold nothing of ours.
    from blt.train import TrainConfig
    from blt.train.job import make_fast
    from blt.train.optim import optimizers
    from blt.train.update import total_norm, update

    device = model.device
    config = TrainConfig(steps=1, recompute=recomputed)
    make_fast(model, config if compiled is None else replace(config, compile=compiled))
    ids = shape.random_ids(rows, context, getattr(model.config, "num_ids", None)).to(device)
    targets = F.pad(ids[:, 1:], (0, 1), value=-1).flatten()
    both = optimizers(model, 1e-4, (0.9, 0.95), 0.1)
    forward = _forward(model, ids, patch_size)  # its gradients are sparse by now
    parameters = trained(model)

    def step() -> None:
        with shape.numerics(precision, device):
            loss = model.loss(forward(), targets) / len(targets)
        loss.backward()
        norm = total_norm(parameters, rows_once=True)
        update(both, parameters, lr=1e-4, clip=1.0, norm=norm, out=~norm.isfinite())

    return step


def _forward(model: Any, ids: Tensor, patch_size: float) -> Forward:
    """The forward pass over ids [rows, context], laid end to end."""
    from blt.model.blt import ByteLatentTransformer
    from blt.model.packing import Spans, pack

    if isinstance(model, ByteLatentTransformer):
        lengths = shape.random_patches(len(ids), ids.shape[1], patch_size)
        packed = pack(list(ids), shape.decisions(lengths))
        groups = model.encoder.embedding.groups(packed.ids, packed.documents.positions)
        if ids.device.type == "cuda":  # elsewhere a step groups the rows itself
            packed = replace(packed, ngrams=groups)
        return lambda: model(packed)
    spans = Spans.from_lengths([ids.shape[1]] * len(ids), ids.device)
    return lambda: model(ids.flatten(), spans)


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


def transformers_writer(model: Any, ids: Tensor) -> Callable[[], None]:
    """Writes a byte of ``transformers``' model after ids [1, T], and after those that it wrote.

    By a full forward, without a cache; patches have 4.5 bytes on average.
    """
    with torch.inference_mode():
        entropies = model.model.patcher(ids, patch_size=4, threshold=1.0)[0]
    model.config.patching_threshold = shape.calibrated_threshold(entropies)

    @torch.inference_mode()
    def write() -> None:
        nonlocal ids
        logits = model(input_ids=ids, use_cache=False).logits[0, -1].float()
        logits[:4] = -torch.inf
        token = torch.multinomial(torch.softmax(logits, -1), 1)
        ids = torch.cat((ids, token[None]), 1)

    return write


def trained(model: Any) -> list[torch.nn.Parameter]:
    """The parameters that training changes."""
    return [p for p in model.parameters() if p.requires_grad]
