"""Stale patches: bytes that must go on without the newest patch, as drafts of self-speculation do.

A draft guesses up to so many bytes with the patch that was complete before the first of them,
whatever patches end meanwhile. Training shows the decoder the same: at some patches, the bytes that
would be the first to see it go on with what was seen before, for a random number of bytes.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace

import torch
from torch import Tensor

from blt.model.language import Batch, Ready
from blt.model.packing import PackedBatch, on

MOST_BYTES = 16  # that go on with a stale patch: as long a draft as is worth its time


def withheld(ready: Ready, share: float) -> Ready:
    """A batch of a BLT in which patches come late; the same of the same batch, every time.

    Args:
        ready: as the model reads it.
        share: of patches, at which bytes begin to go on without the newest.
    """
    packed, *rest = ready.inputs
    generator = torch.Generator().manual_seed(_seed(ready.batch))
    return ready._replace(inputs=(without_newest(packed, share, generator), *rest))


def without_newest(batch: PackedBatch, share: float, generator: torch.Generator) -> PackedBatch:
    """What bytes see where patches come late. Nothing is read from the device of the batch."""
    device, count, seen = batch.ids.device, batch.num_patches, batch.decoder_patch_ids
    draws = torch.rand(count, generator=generator, dtype=torch.float32, device="cpu")
    lengths = torch.randint(1, MOST_BYTES + 1, (count,), generator=generator, device="cpu")
    # How many bytes go on without each patch; 0: it is there in time.
    late = on(torch.where(draws < share, lengths, 0), device)  # [P]
    places = torch.arange(len(seen), dtype=torch.int64, device=device)
    is_first = seen.diff(prepend=seen[:1]) > 0  # to see a patch
    inside = batch.documents.positions > 0  # a document's first byte has nothing else to see
    until = (places + late[seen]).minimum(_ends(batch, places))
    until = torch.where(is_first & inside, until, 0).cummax(0).values
    hidden = places < until
    # Patches are numbered through the batch, so what was seen last is the largest number.
    return replace(batch, decoder_patch_ids=seen.masked_fill(hidden, -1).cummax(0).values)


def _ends(batch: PackedBatch, places: Tensor) -> Tensor:
    """Where the document of each byte ends  # [N]."""
    offsets = batch.documents.cu_seqlens.long()
    return offsets[torch.searchsorted(offsets, places, right=True)]


def _seed(batch: Batch) -> int:
    """A number that belongs to the batch: whoever makes it again draws the same."""
    where = json.dumps(batch.state, sort_keys=True).encode()
    digest = hashlib.sha256(where + batch.targets.numpy().tobytes()).digest()
    return int.from_bytes(digest[:8]) >> 1
