"""Pieces, groups and samples keep every byte, in order, and within their sizes."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from blt.texts.pieces import choose, grouped, groups, sample, segments, streamed

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


@given(documents, st.integers(0, 100))
def test_what_is_chosen_does_not_depend_on_the_order(texts: list[bytes], most: int) -> None:
    found = choose(texts, most)
    assert found == choose(texts[::-1], most)
    assert sum(map(len, found)) == min(most, sum(map(len, texts)))
