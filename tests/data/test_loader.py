"""Batches are full, every byte comes once per epoch, and a stream goes on where it was left."""

from __future__ import annotations

import json
from collections import Counter

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from blt import vocab
from blt.data import Loader, loader_of
from blt.data.prefetch import Prefetch
from blt.data.segments import MemorySegments, Piece
from blt.errors import UserError
from blt.model.language import Batch
from blt.texts.pieces import segments

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


@given(DOCUMENTS, st.integers(1, 9), st.data())
def test_what_follows_a_piece_is_the_next_byte_of_its_document_or_eos(
    documents: list[bytes], context_bytes: int, data: st.DataObject
) -> None:
    source = MemorySegments(documents, context_bytes)
    pieces = [source.read(index, 0, source.length(index)) for index in range(len(source))]
    text = b"".join(piece.data for piece in pieces)
    assert text == b"".join(documents)
    at = 0
    for index, piece in enumerate(pieces):
        at += len(piece.data)
        wanted = vocab.EOS if source.ends(index) else text[at] + vocab.OFFSET
        assert piece.following == wanted
        end = data.draw(st.integers(0, len(piece.data) - 1))  # within it
        assert source.read(index, 0, end).following == piece.data[end] + vocab.OFFSET


@pytest.mark.parametrize(("batch_bytes", "last"), [(5, vocab.EOS), (4, ord("c") + vocab.OFFSET)])
def test_eos_ends_a_document_wherever_there_is_room_for_it(batch_bytes: int, last: int) -> None:
    """Of BOS a b c and EOS, and else EOS is at least what is to be predicted."""
    batch = next(loader_of([b"abc"], batch_bytes=batch_bytes, context_bytes=9))
    assert batch.documents[0][-1] == last
    assert batch.targets[-1] == (vocab.PAD if last == vocab.EOS else vocab.EOS)


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


@given(DOCUMENTS, SIZES["batch_bytes"], st.integers(1, 4), st.integers(1, 4), st.integers(0, 5))
def test_any_number_of_processes_shares_one_stream(
    documents: list[bytes], batch_bytes: int, before: int, after: int, rounds: int
) -> None:
    """The batches of all processes in turn are those of one, also where their number changes."""

    def new(world: int) -> list[Loader]:
        sources = [MemorySegments(documents, 7), MemorySegments([bytes(range(45))], 7)]
        options = {"batch_bytes": batch_bytes, "context_bytes": 7, "world": world}
        return [Loader(sources, [2.0, 1.0], rank=rank, **options) for rank in range(world)]

    (one,) = new(1)
    processes, found = new(before), []
    for _ in range(rounds):
        found += [next(loader) for loader in processes]
    states = [loader.state() for loader in processes]
    assert all(state == states[0] for state in states)
    processes = new(after)
    for loader in processes:
        loader.restore(states[0])
    for _ in range(3):
        found += [next(loader) for loader in processes]
    for batch in found:
        expected = next(one)
        assert torch.equal(batch.targets, expected.targets)
        assert [x.tolist() for x in batch.documents] == [x.tolist() for x in expected.documents]


@given(st.integers(1, 9), st.integers(1, 9), st.integers(0, 5))
def test_sources_have_the_shares_asked_for(a: int, b: int, seed: int) -> None:
    sources = [MemorySegments([letter * size], 10) for letter, size in ((b"a", 300), (b"b", 70))]
    loader = Loader(sources, [a, b], batch_bytes=64, context_bytes=10, seed=seed)
    text = b"".join(text_of(next(loader)) for _ in range(100))
    assert text.count(b"a") / len(text) == pytest.approx(a / (a + b), abs=0.005)


@given(DOCUMENTS, SIZES["batch_bytes"], st.integers(0, 7), st.integers(0, 7))
def test_batches_made_ahead_are_the_same_and_leave_no_trace(
    documents: list[bytes], batch_bytes: int, before: int, more: int
) -> None:
    def new() -> Loader:
        return loader_of(documents, batch_bytes=batch_bytes, context_bytes=9, seed=1)

    plain, ahead = new(), Prefetch(new(), lambda batch: batch)
    for _ in range(before):
        assert torch.equal(next(plain).targets, next(ahead).targets)
    state = json.loads(json.dumps(ahead.state()))
    assert state == plain.state()
    for _ in range(more):
        next(ahead)
    ahead.restore(state)
    for _ in range(5):
        assert torch.equal(next(plain).targets, next(ahead).targets)
    ahead.close()
    assert torch.equal(next(plain).targets, next(ahead).targets)
    ahead.close()


def test_an_error_while_working_ahead_is_raised_where_batches_are_taken() -> None:
    class Damaged(MemorySegments):
        def read(self, index: int, start: int, end: int) -> Piece:
            raise UserError("shard 7: damaged")

    loader = Prefetch(
        Loader([Damaged([b"abc"], 4)], batch_bytes=8, context_bytes=4), lambda batch: batch
    )
    with pytest.raises(UserError, match="shard 7"):
        next(loader)
