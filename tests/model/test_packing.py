"""What a packed batch says of its documents and patches."""

from __future__ import annotations

import torch

from blt import encode
from blt.model.packing import PackedBatch, pack


def two_documents() -> PackedBatch:
    """BOS a|bc and BOS|d|e, where | are boundaries; the first one's patch is complete at its end"""
    decisions = ([1, 1, 1, 0, 1], [1, 1, 1, 0])
    documents = [encode(b"abc"), encode(b"de")]
    return pack(documents, [torch.tensor(part, dtype=torch.bool) for part in decisions])


def test_patches_are_counted_on_and_positions_anew_in_each_document() -> None:
    batch = two_documents()
    assert batch.documents.offsets == (0, 4, 7)
    assert batch.documents.positions.tolist() == [0, 1, 2, 3, 0, 1, 2]
    assert batch.patch_ids.tolist() == [0, 1, 2, 2, 3, 4, 5]
    assert batch.patches.offsets == (0, 3, 6)
    assert batch.patch_offsets.tolist() == [0, 1, 2, 4, 5, 6, 7]


def test_a_byte_sees_the_last_patch_that_is_complete_once_it_is_read() -> None:
    assert two_documents().decoder_patch_ids.tolist() == [0, 1, 1, 2, 3, 4, 4]


def test_bos_does_not_count_in_the_mean_patch_size() -> None:
    assert two_documents().mean_patch_size == 5 / 4
