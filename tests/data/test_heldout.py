"""The split depends on content alone, leaves no side empty, and loses no byte."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from blt import vocab
from blt.data import loader_of, split
from blt.data.heldout import FEW_BYTES, HANDFUL, MOST_HELD_OUT, content_hash
from blt.data.segments import MemorySegments
from blt.errors import UserError

MANY = [f"document {n}\n".encode() * 20 for n in range(400)]


@given(st.randoms())
def test_order_and_other_documents_change_nothing(shuffle: random.Random) -> None:
    chosen = shuffle.sample(MANY, 350)
    whole, part = split(MANY), split(chosen)
    assert set(part.heldout) == set(whole.heldout) & set(chosen)
    assert set(part.train) == set(whole.train) & set(chosen)


def test_copies_stay_together_and_the_share_is_about_right() -> None:
    parts = split(MANY + MANY)
    assert not set(parts.train) & set(parts.heldout)
    assert 0.02 < len(parts.heldout) / len(MANY + MANY) < 0.1


def test_something_is_left_to_train_on_where_every_hash_is_below_the_share() -> None:
    below = [document for document in MANY if content_hash(document) < 0.3]
    parts = split(below, 0.3)
    assert parts.train
    assert parts.heldout


SHARES = st.sampled_from([0.01, 0.02, 0.05, 0.1, 0.3])
REPEATED = st.lists(  # short texts, with how often each occurs
    st.tuples(st.binary(min_size=1, max_size=60), st.integers(1, 40)), min_size=1, max_size=30
).map(lambda found: [text for text, copies in found for _ in range(copies)])


@given(REPEATED, SHARES)
def test_short_documents_are_held_out_whole_and_copies_together(
    documents: list[bytes], share: float
) -> None:
    if len(set(documents)) == 1:
        documents = [*documents, documents[0] + b"."]
    parts = split(documents, share)
    assert not parts.cut
    assert sorted(parts.train + parts.heldout) == sorted(documents)
    assert not set(parts.train) & set(parts.heldout)
    assert parts.train
    assert parts.heldout


@given(st.integers(0, 10**6), st.integers(25, 300), st.integers(1, 9), SHARES)
def test_many_documents_are_never_cut_and_the_share_is_near(
    seed: int, count: int, copies: int, share: float
) -> None:
    size = random.Random(seed).randint
    documents = [f"{seed} {n} ".encode() * size(500, 1000) for n in range(count)] * copies
    parts = split(documents, share)
    assert not parts.cut
    held, total = sum(map(len, parts.heldout)), sum(map(len, documents))
    largest = copies * max(map(len, documents))
    hashed = sum(len(text) for text in documents if content_hash(text) < share)
    if 0 < hashed <= MOST_HELD_OUT * share * total:  # as it always was
        assert set(parts.heldout) == {text for text in documents if content_hash(text) < share}
    elif largest <= MOST_HELD_OUT * share * total:
        assert share * total / MOST_HELD_OUT <= held <= share * total + largest
    else:
        assert len(set(parts.heldout)) == 1


def test_answers_of_repeated_questions_stay_on_their_documents() -> None:
    """Of few contents, no hash may fall into the share: nothing is cut for that."""
    documents = [f"Item {n % 6} answer: {'AB'[n % 2]}".encode() for n in range(6000)]
    parts = split(documents, 0.01)
    assert set(parts.train + parts.heldout) == set(documents)
    assert len(parts.heldout) == 1000
    assert not parts.cut


def test_beside_a_long_document_short_ones_stay_whole() -> None:
    short = [f"question {n}, answer {n % 7}".encode() for n in range(30)]
    long = bytes(range(256)) * 4000
    parts = split([*short, long], 0.05)
    assert len(parts.cut) == 1
    assert set(short) <= set(parts.train + parts.heldout)
    assert sum(map(len, parts.heldout)) == pytest.approx(0.05 * len(long), rel=0.2)


@settings(max_examples=20)
@given(st.integers(1, HANDFUL), st.integers(5000, 9000), st.integers(500, 3000))
def test_training_never_ends_a_text_where_it_was_cut(
    count: int, size: int, context_bytes: int
) -> None:
    """A handful of long documents is cut; what comes after the cut is neither an end nor known."""
    documents = [bytes([n + 1]) * size for n in range(count)]
    parts = split(documents, 1e-4)
    assert parts.cut == set(range(count))
    segments = MemorySegments(parts.train, context_bytes, parts.cut)
    assert not any(segments.ends(index) for index in range(len(segments)))
    last = segments.read(len(segments) - 1, 0, segments.length(len(segments) - 1))
    assert last.following == vocab.PAD
    loader = loader_of(parts.train, parts.cut, batch_bytes=4096, context_bytes=context_bytes)
    for _ in range(3 * count):
        batch = next(loader)
        assert not (batch.targets == vocab.EOS).any()
        assert not any((ids == vocab.EOS).any() for ids in batch.documents)


@given(st.sets(st.integers(0, 99), max_size=9))
def test_what_a_limit_cut_has_no_end_in_training_either(endless: set[int]) -> None:
    documents = MANY[:100]
    parts = split(documents, 0.1, endless)
    assert {parts.train[index] for index in parts.cut} == {
        documents[index] for index in endless
    } & set(parts.train)
    assert parts.divided == 0
    assert not any("the end of" in remark for remark in parts.remarks("x"))


def test_what_a_user_should_know_of_a_split_is_said() -> None:
    assert split(MANY * 20).remarks("x") == []
    (cut,) = split([b"word " * 100_000]).remarks("one.txt")
    assert cut.startswith("one.txt: the end of 1 document is held out")
    (few,) = split(MANY[:40]).remarks("few.jsonl")
    assert f"only {sum(map(len, split(MANY[:40]).heldout)):,} bytes are held out" in few
    assert sum(map(len, split(MANY[:40]).heldout)) < FEW_BYTES


@given(st.lists(st.binary(min_size=1, max_size=200), min_size=1, max_size=8))
def test_few_documents_give_both_sides_and_all_bytes(documents: list[bytes]) -> None:
    if max(map(len, documents)) < 2:
        documents.append(b"ab")
    parts = split(documents)
    assert parts.train and parts.heldout  # noqa: PT018
    assert all(parts.train) and all(parts.heldout)  # noqa: PT018
    assert sum(map(len, parts.train + parts.heldout)) == sum(map(len, documents))


def test_of_a_single_file_the_end_is_held_out_at_a_character() -> None:
    text = ("ü" * 1001).encode()
    parts = split([text], 0.05)
    assert parts.train[0] + parts.heldout[0] == text
    assert len(parts.heldout[0]) == pytest.approx(100, abs=2)
    parts.heldout[0].decode()


def test_one_byte_cannot_be_split() -> None:
    with pytest.raises(UserError, match="too few"):
        split([b"a"])
