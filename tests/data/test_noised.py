"""A share of the segments is disturbed, the same in every process; the others stay as they are."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from blt import vocab
from blt.data.loader import Loader
from blt.data.noised import NoisedSegments, with_noise
from blt.data.segments import MemorySegments, Piece
from blt.texts.noises import NOISES, PAPER

DOCUMENTS = st.lists(
    st.binary(min_size=1, max_size=60) | st.text(min_size=1, max_size=30).map(str.encode),
    min_size=1,
    max_size=6,
)
TEXT = [f"Document {n} of some, with a few words in it.".encode() for n in range(40)]


class WithEntropies(MemorySegments):
    def read(self, index: int, start: int, end: int) -> Piece:
        piece = super().read(index, start, end)
        return Piece(piece.data, piece.following, np.arange(start, end + 1, dtype=np.float32))


def whole(source: NoisedSegments, index: int) -> Piece:
    return source.read(index, 0, source.length(index))


@given(DOCUMENTS, st.integers(1, 30), st.floats(0.1, 1.0), st.integers(0, 99))
def test_the_clean_share_is_bit_for_bit_what_it_was(
    documents: list[bytes], context_bytes: int, share: float, seed: int
) -> None:
    text = WithEntropies(documents, context_bytes)
    source = NoisedSegments(text, share, list(NOISES)).in_epoch(seed, 0, 0)
    for index in range(len(source)):
        found, was = whole(source, index), text.read(index, 0, text.length(index))
        assert source.ends(index) == text.ends(index)
        if found.asked is None:
            assert (found.data, found.following) == (was.data, was.following)
            assert found.entropies is not None
            assert np.array_equal(found.entropies, was.entropies)
        else:
            assert found.entropies is None  # they are those of other text
            assert len(found.data) == source.length(index) > 0
            assert found.following == (vocab.EOS if text.ends(index) else vocab.PAD)


@given(DOCUMENTS, st.integers(1, 30), st.integers(0, 99), st.data())
def test_numbers_and_index_decide_in_whatever_order_it_is_read(
    documents: list[bytes], context_bytes: int, seed: int, data: st.DataObject
) -> None:
    text = MemorySegments(documents, context_bytes)
    one, two = (NoisedSegments(text, 0.7, list(PAPER)).in_epoch(seed, 1, 2) for _ in range(2))
    wholes = [whole(one, index) for index in range(len(one))]
    for index in reversed(range(len(two))):
        end = data.draw(st.integers(0, two.length(index)))
        start = data.draw(st.integers(0, end))
        part, all_of_it = two.read(index, start, end), wholes[index]
        assert part.data == all_of_it.data[start:end]
        if all_of_it.asked is None:
            assert part.asked is None
            continue
        assert part.asked is not None
        assert np.array_equal(part.asked, all_of_it.asked[start:end])
        if end < len(all_of_it.data):
            known = all_of_it.asked[end]
            assert part.following == (all_of_it.data[end] + vocab.OFFSET if known else vocab.PAD)


def test_other_epochs_sources_and_seeds_have_other_noise() -> None:
    source = NoisedSegments(MemorySegments(TEXT, 64), 0.5, list(PAPER))
    found = {
        tuple(whole(source.in_epoch(*key), index).data for index in range(len(source)))
        for key in ((0, 0, 0), (0, 0, 1), (0, 1, 0), (1, 0, 0), (0, 0, 0))
    }
    assert len(found) == 4


@pytest.mark.parametrize("share", [0.05, 0.2, 1.0])
def test_the_share_and_the_noises_are_those_asked_for(share: float) -> None:
    text = MemorySegments([b"Some text of a document."] * 4000, 64)
    source = NoisedSegments(text, share, ["UpperCase", "AntSpeak"]).in_epoch(0, 0, 0)
    found = [whole(source, index) for index in range(len(source))]
    disturbed = [piece.data for piece in found if piece.asked is not None]
    assert len(disturbed) / len(text) == pytest.approx(share, abs=0.02)
    assert disturbed.count(b"SOME TEXT OF A DOCUMENT.") / len(disturbed) == pytest.approx(
        0.5, abs=0.1
    )


def test_what_a_noise_would_leave_nothing_of_stays_as_it_is() -> None:
    source = NoisedSegments(MemorySegments([b"x"] * 500, 8), 1.0, ["Drop"]).in_epoch(0, 0, 0)
    assert {source.length(index) for index in range(500)} == {1}
    assert {whole(source, index).data for index in range(500)} == {b"x"}


def test_positions_belong_to_the_noise() -> None:
    text = MemorySegments(TEXT, 64)
    assert with_noise(text, 0.0, list(PAPER)) is text
    sources = [text, *(with_noise(text, *how) for how in ((0.1, PAPER), (0.2, PAPER)))]
    sources.append(with_noise(text, 0.2, ["Drop"]))
    assert len({source.fingerprint for source in sources}) == 4


@given(
    DOCUMENTS,
    st.integers(2, 50),
    *[st.integers(1, 3)] * 2,
    st.integers(0, 5),
)
def test_a_stream_goes_on_exactly_in_any_number_of_processes(
    documents: list[bytes], batch_bytes: int, before: int, after: int, rounds: int
) -> None:
    def new(world: int) -> list[Loader]:
        sources = [with_noise(MemorySegments(d, 7), 0.5, list(NOISES)) for d in (documents, TEXT)]
        options = {"batch_bytes": batch_bytes, "context_bytes": 7, "world": world, "seed": 5}
        return [Loader(sources, [2.0, 1.0], rank=rank, **options) for rank in range(world)]

    (one,) = new(1)
    processes, found = new(before), []
    for _ in range(rounds):
        found += [next(loader) for loader in processes]
    state = json.loads(json.dumps(processes[0].state()))
    processes = new(after)
    for loader in processes:
        loader.restore(state)
    for _ in range(3):
        found += [next(loader) for loader in processes]
    for batch in found:
        expected = next(one)
        assert torch.equal(batch.targets, expected.targets)
        assert [x.tolist() for x in batch.documents] == [x.tolist() for x in expected.documents]


@given(DOCUMENTS, st.integers(2, 50), st.integers(1, 30))
def test_batches_are_full_and_ask_for_the_next_byte_unless_it_is_noise(
    documents: list[bytes], batch_bytes: int, context_bytes: int
) -> None:
    source = with_noise(MemorySegments(documents, context_bytes), 0.6, ["Repeat", "UpperCase"])
    loader = Loader([source], batch_bytes=batch_bytes, context_bytes=context_bytes)
    for _ in range(8):
        batch = next(loader)
        assert sum(map(len, batch.documents)) == len(batch.targets) == batch_bytes
        for ids, targets in zip(
            batch.documents, batch.targets.split([len(x) for x in batch.documents]), strict=True
        ):
            asked = targets[:-1] != vocab.PAD
            assert torch.equal(targets[:-1][asked], ids[1:][asked])
            assert (ids[1:] >= vocab.OFFSET).sum() <= context_bytes


def test_a_batch_leaves_out_what_repeat_put_in() -> None:
    text = MemorySegments([b"abcdefghij" * 3], 64)
    loader = Loader([with_noise(text, 1.0, ["Repeat"])], batch_bytes=200, context_bytes=200)
    batch = next(loader)
    ids, targets = batch.documents[0], batch.targets[: len(batch.documents[0])]
    assert ids[-1] == vocab.EOS
    asked = targets[targets != vocab.PAD]
    assert vocab.decode(asked) == b"abcdefghij" * 3
    assert asked[-1] == vocab.EOS
    assert len(vocab.decode(ids)) > 30
