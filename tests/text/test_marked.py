"""What is learned of a text goes with its bytes, wherever it is cut."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st

from blt import vocab
from blt.texts.marked import Marked, encode, marked, num_learned, runs, spans_of, targets
from blt.texts.pieces import choose

IDS = st.lists(st.integers(1, vocab.VOCAB_SIZE - 1), max_size=9)
PARTS = st.lists(st.tuples(IDS, st.booleans()), max_size=5)


def flat(parts: list[tuple[list[int], bool]]) -> tuple[list[int], list[bool]]:
    """Ids, and which are learned, without an EOS at the end."""
    ids = [token_id for part, _ in parts for token_id in part]
    learned = [is_learned for part, is_learned in parts for _ in part]
    size = len(ids) - (ids[-1:] == [vocab.EOS])
    return ids[:size], learned[:size]


@given(PARTS)
def test_a_document_has_the_ids_and_the_marks_of_its_parts(
    parts: list[tuple[list[int], bool]],
) -> None:
    text, (ids, learned) = marked(parts), flat(parts)
    assert encode(text).tolist() == [vocab.BOS, *ids]
    wanted = [i if is_learned else vocab.PAD for i, is_learned in zip(ids, learned, strict=True)]
    assert targets(text).tolist() == [*wanted, vocab.PAD]
    assert num_learned(text) == sum(learned)
    if isinstance(text, Marked):
        assert text.learns_end == bool(parts and parts[-1][1])
    else:  # plain text, learned whole
        assert all(learned)
        assert vocab.encode(text).tolist() == [vocab.BOS, *ids]


@given(PARTS)
def test_learned_whole_it_has_no_marks_but_special_ids(
    parts: list[tuple[list[int], bool]],
) -> None:
    text, (ids, _) = marked(parts, every=True), flat(parts)
    assert targets(text).tolist() == [*ids, vocab.PAD]
    assert isinstance(text, Marked) == any(i < vocab.OFFSET for i in ids)


@given(PARTS, st.integers(0, 45), st.integers(0, 45))
@example([([70, 71], False), ([72, 73], True), ([74, 75], False)], 1, 6)
def test_a_slice_has_the_marks_of_its_bytes(
    parts: list[tuple[list[int], bool]], start: int, end: int
) -> None:
    text = marked(parts)
    if not isinstance(text, Marked):
        return
    part = text[start:end]
    assert bytes(part) == bytes(text)[start:end]
    assert part.learned().tolist() == text.learned()[start:end].tolist()
    assert encode(part).tolist()[1:] == encode(text).tolist()[1:][start:end]
    if part:
        assert part.learns_end == (text.learns_end and end >= len(text))


@given(PARTS, st.integers(1, 9))
def test_pieces_of_a_document_are_all_of_it(parts: list[tuple[list[int], bool]], size: int) -> None:
    text = marked(parts)
    pieces = [text[at : at + size] for at in range(0, len(text), size)]
    assert sum(map(num_learned, pieces)) == num_learned(text)
    assert [i for piece in pieces for i in encode(piece).tolist()[1:]] == encode(text).tolist()[1:]


@given(PARTS)
def test_runs_are_learned_or_not(parts: list[tuple[list[int], bool]]) -> None:
    text = marked(parts)
    found = runs(text)
    assert b"".join(bytes(text)[a:b] for a, b in found) == bytes(text)
    if isinstance(text, Marked):
        places = {at for at, _ in text.specials}
        for a, b in found:
            assert len(set(text.learned()[a:b].tolist())) <= 1
            assert b - a == 1 or not places & set(range(a, b))


@given(st.lists(st.booleans(), max_size=20))
def test_spans_are_runs_of_what_is_true(learned: list[bool]) -> None:
    again = np.zeros(len(learned), dtype=bool)
    for start, end in spans_of(np.array(learned, dtype=bool)):
        assert start < end
        assert not again[max(0, start - 1) : end].any()
        again[start:end] = True
    assert again.tolist() == learned


def test_only_neighbours_can_be_taken_out_of_it() -> None:
    with pytest.raises(ValueError, match="neighbouring"):
        Marked(b"abc", [(0, 1)])[::2]
    assert Marked(b"abc", [(0, 1)])[1] == ord("b")


def test_marked_text_is_drawn_whole_and_plain_text_as_ever() -> None:
    plain = [bytes([n]) * 900 for n in range(20)]
    chats = [Marked(b"question " * 9 + b"answer %d" % n, [(81, 88)]) for n in range(60)]
    found = choose([*plain, *chats], 4000, 64)
    drawn = [piece for piece in found if isinstance(piece, Marked)]
    assert all(num_learned(piece) for piece in drawn)  # of each the second piece only
    assert {bytes(piece) for piece in drawn} <= {bytes(chat[64:]) for chat in chats}
    rest = 4000 * 18000 // (18000 + sum(map(len, chats)))
    assert found[: -len(drawn)] == choose(plain, rest, 64)
    hashes = [hashlib.sha256(next(c for c in chats if c[64:] == p)).digest() for p in drawn]
    assert hashes == sorted(hashes)


def test_targets_of_plain_text_are_its_bytes() -> None:
    assert torch.equal(targets(b"ab"), torch.tensor([ord("a") + 4, ord("b") + 4, vocab.PAD]))
