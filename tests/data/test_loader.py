"""Batches are full, every byte comes once per epoch, and a stream goes on where it was left."""

from __future__ import annotations

import json
from collections import Counter

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from blt import vocab
from blt.data import Batch, Loader, loader_of, segments

DOCUMENTS = st.lists(st.binary(min_size=1, max_size=60), min_size=1, max_size=6)
SIZES = {"batch_bytes": st.integers(2, 50), "context_bytes": st.integers(1, 30)}


def text_of(batch: Batch) -> bytes:
    return b"".join(vocab.decode(ids) for ids in batch.documents)


@given(DOCUMENTS, SIZES["batch_bytes"], SIZES["context_bytes"], st.integers(0, 9))
def test_every_byte_comes_once_per_epoch(
    documents: list[bytes], batch_bytes: int, context_bytes: int, seed: int
) -> None:
    loader = loader_of(documents, batch_bytes=batch_bytes, context_bytes=context_bytes, seed=seed)
    total = sum(map(len, documents))
    stream = b""
    while len(stream) < 2 * total:
        stream += text_of(next(loader))
    for epoch in (stream[:total], stream[total : 2 * total]):
        assert Counter(epoch) == Counter(b"".join(documents))


@given(DOCUMENTS, SIZES["batch_bytes"], SIZES["context_bytes"])
def test_batches_are_full_and_targets_are_the_next_ids(
    documents: list[bytes], batch_bytes: int, context_bytes: int
) -> None:
    loader = loader_of(documents, batch_bytes=batch_bytes, context_bytes=context_bytes)
    for _ in range(6):
        batch = next(loader)
        assert sum(map(len, batch.documents)) == len(batch.targets) == batch_bytes
        at = 0
        for ids in batch.documents:
            targets = batch.targets[at : at + len(ids)]
            assert ids[0] == vocab.BOS
            assert (ids[1:] >= vocab.OFFSET).sum() <= context_bytes
            assert torch.equal(targets[:-1], ids[1:])
            assert (targets[-1] == vocab.PAD) == (ids[-1] == vocab.EOS)
            at += len(ids)


@given(DOCUMENTS, SIZES["batch_bytes"], st.integers(0, 12))
def test_a_restored_stream_goes_on_exactly(
    documents: list[bytes], batch_bytes: int, before: int
) -> None:
    def new() -> Loader:
        return loader_of(documents, batch_bytes=batch_bytes, context_bytes=7, seed=3)

    first, second = new(), new()
    for _ in range(before):
        next(first)
    second.restore(json.loads(json.dumps(first.state())))
    for _ in range(8):
        a, b = next(first), next(second)
        assert [x.tolist() for x in a.documents] == [x.tolist() for x in b.documents]
        assert torch.equal(a.targets, b.targets)


def test_order_differs_by_epoch_and_seed() -> None:
    documents = [bytes([n]) * 2 for n in range(60)]

    def epoch(seed: int, skip: int) -> bytes:
        loader = loader_of(documents, batch_bytes=240, context_bytes=9, seed=seed)
        return [text_of(next(loader)) for _ in range(skip + 1)][-1]

    assert len({epoch(0, 0), epoch(0, 1), epoch(1, 0)}) == 3
    assert epoch(0, 1) == epoch(0, 1)


def test_empty_documents_are_refused() -> None:
    with pytest.raises(ValueError, match="none of them empty"):
        loader_of([b"a", b""], batch_bytes=8, context_bytes=8)


@given(DOCUMENTS, SIZES["context_bytes"])
def test_segments_lose_nothing(documents: list[bytes], context_bytes: int) -> None:
    pieces = segments(documents, context_bytes)
    assert b"".join(pieces) == b"".join(documents)
    assert max(map(len, pieces)) <= context_bytes
