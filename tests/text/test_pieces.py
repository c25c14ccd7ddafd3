"""Pieces, groups and samples keep every byte, in order, and within their sizes."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from blt.texts.pieces import LEAST, choose, drawn, grouped, groups, sample, segments, streamed

documents = st.lists(st.binary(max_size=40), max_size=8)


@given(documents, st.integers(1, 50))
def test_segments_are_the_documents_cut(texts: list[bytes], size: int) -> None:
    pieces = segments(texts, size)
    assert b"".join(pieces) == b"".join(texts)
    assert all(0 < len(piece) <= size for piece in pieces)


@given(documents, st.integers(1, 60))
def test_groups_hold_all_that_is_not_empty_and_no_more_than_asked(
    texts: list[bytes], most: int
) -> None:
    found = groups([len(text) for text in texts], most)
    assert [i for group in found for i in group] == [i for i, text in enumerate(texts) if text]
    for group in found:
        assert len(group) == 1 or sum(len(texts[i]) for i in group) <= most
    for one, other in pairwise(found):  # the next would not have fitted
        assert sum(len(texts[i]) for i in (*one, other[0])) > most
    assert [[texts[i] for i in group] for group in found] == list(grouped(texts, most))


@given(documents, st.integers(1, 60))
def test_streamed_groups_hold_all_and_end_as_soon_as_they_are_full(
    texts: list[bytes], least: int
) -> None:
    found = list(streamed(iter(texts), least))
    assert [text for group in found for text in group] == texts
    for group in found[:-1]:
        assert sum(map(len, group)) >= least > sum(map(len, group[:-1]))


@given(documents, st.integers(1, 20), st.one_of(st.none(), st.integers(0, 200)))
def test_a_sample_is_pieces_of_about_the_size_and_always_the_same(
    texts: list[bytes], context: int, size: int | None
) -> None:
    found, pieces = sample(texts, context, size), segments(texts, context)
    assert found == sample(texts, context, size)
    assert set(found) <= set(pieces)
    total, all_of_it = sum(map(len, found)), sum(map(len, pieces))
    assert total == all_of_it if size is None else total >= min(size, all_of_it)
    assert size is None or total < size + context or total == all_of_it


many = st.lists(st.binary(max_size=2500), max_size=8)
most = st.one_of(st.none(), st.integers(0, 9000))


def sizes(found: list[list[bytes]]) -> list[int]:
    return [sum(map(len, pieces)) for pieces in found]


@given(many, most, st.integers(1, 900))
def test_what_is_drawn_does_not_depend_on_the_order_and_is_as_much_as_asked(
    texts: list[bytes], size: int | None, context: int
) -> None:
    found = drawn(texts, size, context)
    assert found == drawn(texts[::-1], size, context)
    assert choose(texts, size, context) == [piece for pieces in found for piece in pieces]
    total = sum(map(len, texts))
    assert sum(sizes(found)) == (total if size is None else min(size, total))
    assert all(0 < len(piece) <= context for pieces in found for piece in pieces)
    if size is None or size >= total:
        assert sorted(map(b"".join, found)) == sorted(filter(None, texts))


@given(many, st.integers(0, 9000), st.integers(1, 900))
def test_the_same_bytes_are_drawn_of_each_document_that_has_them(
    texts: list[bytes], size: int, context: int
) -> None:
    whole = [document for document in drawn(texts, None, max(1, *map(len, texts), 1)) if document]
    lengths = [sum(map(len, pieces)) for pieces in whole]
    found = sizes(drawn(texts, size, context))
    for share, length in zip(found, lengths, strict=False):
        assert share == length or max(found) - share <= 1  # a byte where it does not divide
    if len(found) < len(lengths):  # there are more than can give enough
        assert sum(min(LEAST, context, length) for length in lengths[: len(found)]) >= size


def test_pieces_come_from_everywhere_in_a_document() -> None:
    text = b"".join(number.to_bytes(4, "big") for number in range(25_000))  # 100 kB
    (pieces,) = drawn([text], 8000, 1000)
    starts = [text.index(piece) for piece in pieces]
    assert [len(piece) for piece in pieces] == [1000] * 8
    assert starts == [5750 + 12500 * index for index in range(8)]
    twelve = [bytes([number]) * 50_000 for number in range(12)]  # one language each
    assert sizes(drawn(twelve, 24_000)) == [2000] * 12


def test_as_many_documents_are_drawn_as_can_give_enough_to_be_judged_by() -> None:
    documents = [bytes([n]) * (10 * LEAST) for n in range(40)]
    found = drawn(documents, 5 * LEAST)
    assert [sum(map(len, pieces)) for pieces in found] == [LEAST] * 5
