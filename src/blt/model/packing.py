"""The flat packed batch: many documents end to end, with no padding to compute on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from blt.patching.views import mean_patch_size


@dataclass(frozen=True)
class Spans:
    """Where documents lie in a flat stream of N bytes (or patches)."""

    offsets: tuple[int, ...]  # [D + 1] from 0 to N, on the host: they steer loops
    positions: Tensor  # [N] int64, index from each document's start

    @classmethod
    def from_lengths(cls, lengths: Sequence[int], device: torch.device | str = "cpu") -> Spans:
        offsets = [0]
        for length in lengths:
            offsets.append(offsets[-1] + length)
        parts = [torch.arange(length, dtype=torch.int64, device=device) for length in lengths]
        positions = torch.cat(parts) if parts else torch.empty(0, dtype=torch.int64, device=device)
        return cls(tuple(offsets), positions)

    @property
    def lengths(self) -> list[int]:
        return [end - start for start, end in pairwise(self.offsets)]

    def split(self, flat: Tensor) -> tuple[Tensor, ...]:
        """[N, ...] → one view per document."""
        return flat.split(self.lengths)


@dataclass(frozen=True)
class PackedBatch:
    """What the model reads: bytes, documents, and the patches that the bytes form."""

    ids: Tensor  # [N] int64
    documents: Spans  # over bytes
    patches: Spans  # over patches: each document's run of them
    patch_ids: Tensor  # [N] patch that byte i lies in, counted through the whole batch
    decoder_patch_ids: Tensor  # [N] patch whose global output byte i sees
    patch_offsets: Tensor  # [P + 1] first byte of each patch

    @property
    def num_patches(self) -> int:
        return self.patches.offsets[-1]

    @property
    def mean_patch_size(self) -> float:
        """Bytes per patch; the BOS of each document, a patch of its own, is not counted."""
        documents = len(self.documents.offsets) - 1
        return mean_patch_size(len(self.ids), self.num_patches, documents)


def pack(documents: Sequence[Tensor], decisions: Sequence[Tensor]) -> PackedBatch:
    """Lay documents end to end.

    Args:
        documents: ids, each [T] with T >= 1.
        decisions: for each document [T + 1] bool from :func:`blt.patching.decide`.
    """
    device = documents[0].device
    spans = Spans.from_lengths([len(ids) for ids in documents], device)
    starts = torch.cat([decision[:-1] for decision in decisions])  # [N]
    starts_next = torch.cat([decision[1:] for decision in decisions])  # [N]
    patch_ids = starts.cumsum(0) - 1
    first_bytes = starts.nonzero().flatten()  # [P]
    patch_counts = [int(part.sum()) for part in spans.split(starts)]
    return PackedBatch(
        ids=torch.cat(list(documents)),
        documents=spans,
        patches=Spans.from_lengths(patch_counts, device),
        patch_ids=patch_ids,
        # patch_id(i + 1) - 1 within the document: the patch that is complete once byte i is read
        decoder_patch_ids=patch_ids - 1 + starts_next.to(torch.int64),
        patch_offsets=torch.cat((first_bytes, first_bytes.new_tensor([len(starts)]))),
    )
