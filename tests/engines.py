"""What engines must write, without any cache, and how much of it is tried."""

from __future__ import annotations

import torch

import blt


def greedy_by_full_forwards(
    lm: blt.BLT | blt.ByteLM, prompt: bytes | torch.Tensor, count: int
) -> bytes:
    """What greedy generation must write, without any cache."""
    ids = prompt if isinstance(prompt, torch.Tensor) else blt.encode(prompt)
    written = bytearray()
    for _ in range(count):
        logits = lm.logits(ids)[-1]
        logits[[blt.vocab.BOE, blt.vocab.BOS, blt.vocab.BPE]] = -torch.inf
        token = int(logits.argmax())
        if token == blt.vocab.EOS:
            break
        written.append(token - blt.vocab.OFFSET)
        ids = torch.cat((ids, ids.new_tensor([token])))
    return bytes(written)


def fewer(form: str, count: int, by: int) -> int:
    """Captured steps that are just called take long."""
    return -(-count // by) if form == "captured" else count
