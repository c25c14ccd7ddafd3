"""From a text that was read with the host's help into a row of the steps' own state."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from blt.generate.captured.blt_steps import BLTSteps
from blt.generate.captured.choice import Needs
from blt.generate.captured.slots import last_of
from blt.generate.captured.steps import Writing
from blt.generate.incremental import CachedModel, Text
from blt.generate.request import Request
from blt.vocab import VOCAB_SIZE


def load(steps: Writing, model: CachedModel, row: int, request: Request) -> None:
    """Take the text in ``row`` of a model, whose rings the steps share, and choose its first id."""
    text, opens = model.texts[row], True
    values = _of_request(request)
    values |= {"position": len(text.ids), "home": row}
    if isinstance(steps, BLTSteps):
        values |= _load_patches(steps, model, row, text)
        assert text.boundaries is not None
        opens = text.boundaries.opens
    steps.texts.put(row, values)
    width = steps.texts.recent.shape[1]
    recent = torch.tensor(last_of(text.ids, width), dtype=torch.int64, device="cpu")
    steps.texts.recent[row] = recent
    seen = torch.zeros(VOCAB_SIZE, dtype=torch.bool, device="cpu")
    seen[list(request.chooser.seen)] = True
    steps.texts.ids[row] = seen
    steps.first(row, model.logits[row], Needs.of([request.sampling]), opens)


def _of_request(request: Request) -> dict[str, float]:
    sampling, chooser = request.sampling, request.chooser
    return {
        "active": 1,
        "spelling": chooser.state,
        "remaining": min(chooser.remaining, 2**62),
        "key": request.generator.key,
        "taken": request.generator.taken,
        "drafts": request.draft_bytes,
        "top_k": min(sampling.top_k or VOCAB_SIZE, VOCAB_SIZE),
        "temperature": sampling.temperature,
        "top_p": sampling.top_p,
        "min_p": sampling.min_p,
        "penalty": sampling.repetition_penalty,
    }


def _load_patches(steps: BLTSteps, model: Any, row: int, text: Text) -> dict[str, float]:
    """Its patches, complete and open; the numbers that go with them."""
    assert text.boundaries is not None
    assert text.patches is not None
    length, boundaries = text.patches.length, text.boundaries
    steps.patches.load(row, text.patches.memory[:, :, :, :length])
    steps.seeing.memory[:, :, row] = model.seen[:, :, row]
    states = torch.cat(text.open_patch) if text.open_patch else None
    size = 0 if states is None else len(states)
    if states is not None:
        steps.patching.peak[row] = states.amax(0)
        _load_open(steps, row, states, len(text.ids) - size)
    return {
        "rule_start": boundaries.rule_start,
        "context": boundaries.context,
        "patch_start": len(text.ids) - size,
        "patches": length,
        "entropy": boundaries.entropy,
    }


def _load_open(steps: BLTSteps, row: int, states: Tensor, first: int) -> None:
    """Keys and values of the bytes of the open patch, of which the first is at ``first``."""
    if steps.crossing is None:
        return
    memory = steps.patching.open[row]  # [2, H, OPEN, D]
    at = torch.arange(first, first + len(states), dtype=torch.int64, device=states.device)
    for kept, new in zip(memory, steps.crossing.keys_values(states), strict=True):
        heads = new.to(kept.dtype).unflatten(-1, (len(kept), -1)).transpose(0, 1)
        kept.index_copy_(1, at % memory.shape[2], heads)
