"""The flat packed batch: many documents end to end, with no padding to compute on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from itertools import pairwise
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from blt.model.kernels.bags import RowGroups
from blt.model.kernels.rows import longest
from blt.patching.views import mean_patch_size


@dataclass(frozen=True)
class Spans:
    """Where documents lie in a flat stream of N bytes (or patches)."""

    offsets: tuple[int, ...]  # [D + 1] from 0 to N, on the host
    positions: Tensor  # [N] int64, index from each document's start
    cu_seqlens: Tensor  # [D + 1] int32, the offsets on the device of the stream
    longest: int  # of the documents

    @classmethod
    def from_lengths(
        cls, lengths: Sequence[int] | np.ndarray, device: torch.device | str = "cpu"
    ) -> Spans:
        offsets = np.zeros(len(lengths) + 1, dtype=np.int64)
        np.cumsum(lengths, out=offsets[1:])
        positions = np.arange(offsets[-1]) - np.repeat(offsets[:-1], lengths)
        return cls.at(offsets.tolist(), torch.from_numpy(positions).to(device))

    @classmethod
    def at(cls, offsets: Sequence[int], positions: Tensor) -> Spans:
        """Documents that begin at ``offsets`` [D + 1], with positions [N] that may begin later."""
        cu_seqlens = torch.tensor(offsets, dtype=torch.int32, device="cpu")
        return cls(tuple(offsets), positions, cu_seqlens.to(positions.device), longest(offsets))

    @classmethod
    def along(cls, positions: Tensor) -> Spans:
        """One run of rows, each of which sees what its layer's cache shows it."""
        none = positions.new_empty(0, dtype=torch.int32)
        return cls((0, len(positions)), positions, none, len(positions))

    @property
    def lengths(self) -> list[int]:
        return [end - start for start, end in pairwise(self.offsets)]

    def split(self, flat: Tensor) -> tuple[Tensor, ...]:
        """[N, ...] → one view per document."""
        return flat.split(self.lengths)

    def to(self, device: torch.device) -> Spans:
        positions, cu_seqlens = (on(x, device) for x in (self.positions, self.cu_seqlens))
        return Spans(self.offsets, positions, cu_seqlens, self.longest)


@dataclass(frozen=True)
class Laid:
    """Documents end to end, of which the model says itself where patches start."""

    ids: Tensor  # [N] int64
    documents: Spans  # over bytes
    ngrams: RowGroups | None = None  # as of a PackedBatch


@dataclass(frozen=True)
class PackedBatch:
    """What the model reads: bytes, documents, and the patches that the bytes form."""

    ids: Tensor  # [N] int64
    documents: Spans  # over bytes
    patches: Spans  # over patches: each document's run of them
    patch_ids: Tensor  # [N] patch that byte i lies in, counted through the whole batch
    decoder_patch_ids: Tensor  # [N] patch whose global output byte i sees
    patch_offsets: Tensor  # [P + 1] first byte of each patch
    ngrams: RowGroups | None = None  # of the rows that the bytes' n-grams fall into, if known

    @property
    def num_patches(self) -> int:
        return len(self.patches.positions)

    @property
    def mean_patch_size(self) -> float:
        """Bytes per patch; the BOS of each document, a patch of its own, is not counted."""
        documents = len(self.documents.offsets) - 1
        return mean_patch_size(len(self.ids), self.num_patches, documents)

    def to(self, device: torch.device) -> PackedBatch:
        """The same on a device, without waiting for it."""
        parts = {field.name: getattr(self, field.name) for field in fields(self)}
        moved = {name: on(part, device) for name, part in parts.items() if part is not None}
        return PackedBatch(**moved)


def pack(
    documents: Sequence[Tensor],
    decisions: Sequence[Tensor],
    device: torch.device | None = None,
) -> PackedBatch:
    """Lay documents end to end: on the CPU, and then all of it goes to the device.

    Args:
        documents: ids, each [T] with T >= 1.
        decisions: for each document [T + 1] bool from :func:`blt.patching.decide`.
        device: of the batch; None: that of the documents.
    """
    lengths = np.array([len(ids) for ids in documents])
    ends = np.cumsum(lengths + 1)  # of documents among all decisions
    decided = torch.cat(list(decisions)).cpu().numpy()
    starts, starts_next = np.delete(decided, ends - 1), np.delete(decided, ends - lengths - 1)
    patch_ids = np.cumsum(starts) - 1
    patch_offsets = np.append(np.flatnonzero(starts), len(starts))
    last_patches = patch_ids[np.cumsum(lengths) - 1]
    batch = PackedBatch(
        ids=torch.cat(list(documents)),
        documents=Spans.from_lengths(lengths),
        patches=Spans.from_lengths(np.diff(last_patches, prepend=-1)),
        patch_ids=torch.from_numpy(patch_ids),
        # patch_id(i + 1) - 1 within the document: the patch that is complete once byte i is read
        decoder_patch_ids=torch.from_numpy(patch_ids - 1 + starts_next),
        patch_offsets=torch.from_numpy(patch_offsets),
    )
    return batch.to(documents[0].device if device is None else device)


def end_to_end(documents: Sequence[Tensor], device: torch.device) -> tuple[Tensor, Spans]:
    """Ids [T] of each document, laid end to end on a device  # [N]; and where they lie."""
    spans = Spans.from_lengths([len(ids) for ids in documents])
    return on(torch.cat(list(documents)), device), on(spans, device)


Moved = TypeVar("Moved", Tensor, Spans)


def on(part: Moved, device: torch.device) -> Moved:
    """A tensor, or spans, on a device; what a GPU gets it fetches by itself from pinned memory."""
    if isinstance(part, Tensor) and part.device.type == "cpu" and device.type == "cuda":
        return part.pin_memory().to(device, non_blocking=True)
    return part.to(device)
