"""Patches are cut where the source's tokens end, and each has the token that it stands for."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from blt import vocab
from blt.byteify.cuts import learn_table, tokens_of
from blt.patching import PatchingConfig
from blt.patching.deciding import decide
from blt.tokens.tokenizer import ByteTokenizer

TEXTS = [
    b"the theatre and the other thing " * 3,
    b"a cat, a hat. \xff\xfe the end",
    b"",
    b"t",
    b"th",
]


@pytest.fixture(scope="module")
def tokenizer() -> ByteTokenizer:
    return ByteTokenizer.train([b"the theatre and the other thing, a cat " * 20], 280)


def patches(ids: Tensor, decisions: Tensor) -> list[bytes]:
    found: list[list[int]] = []
    for value, starts in zip(ids.tolist(), decisions.tolist(), strict=False):
        if starts:
            found.append([])
        found[-1].append(value)
    return [bytes(max(0, value - vocab.OFFSET) for value in patch) for patch in found]


def test_a_patch_is_a_token_one_byte_late() -> None:
    tokenizer = ByteTokenizer.train([b"ab ab ab " * 9, b" cd cd cd" * 9], 260)
    assert {b"ab", b" cd"} <= set(tokenizer.tokens())
    text = vocab.encode(b"ab cd cd")
    assert tokenizer.tokens()[tokenizer.encode(b"ab cd")[0]] == b"ab"
    assert patches(text, tokens_of(tokenizer, text).decisions) == [b"\0", b"ab ", b"cd ", b"cd"]


@given(st.binary(max_size=30) | st.text("the or", max_size=30).map(str.encode), st.booleans())
def test_a_patch_starts_after_the_first_byte_of_each_token_but_the_first(
    tokenizer: ByteTokenizer, text: bytes, eos: bool
) -> None:
    ids = vocab.encode(text, eos=eos)
    cut = tokens_of(tokenizer, ids)
    starts, at = [], 1
    for token in tokenizer.encode(text):
        starts.append(at)
        at += len(tokenizer.decode([token]))
    assert cut.firsts == starts
    starts += [at] if eos else []
    expected = [t < 2 or t - 1 in starts[1:] for t in range(len(ids) + 1)]
    assert cut.decisions.tolist() == expected


def slow_scores(
    tokenizer: ByteTokenizer, documents: list[Tensor], order: int
) -> dict[tuple[int, ...], float]:
    """How often a token begins with the last of some ids, counted one by one."""
    seen: dict[tuple[int, ...], list[bool]] = {}
    for ids in documents:
        decisions = tokens_of(tokenizer, ids).decisions.tolist()
        padded = [0] * order + ids.tolist()
        for t in range(len(ids)):
            for n in range(1, order + 1):
                context = tuple(padded[order + t + 1 - n : order + t + 1])
                seen.setdefault(context, []).append(decisions[t + 1])
    return {context: sum(values) / len(values) for context, values in seen.items()}


@pytest.mark.parametrize("order", [1, 2])
def test_the_table_of_a_tokenizer_is_what_a_slow_count_gives(
    tokenizer: ByteTokenizer, order: int
) -> None:
    documents = [vocab.encode(text) for text in TEXTS]
    config = PatchingConfig(rule="lookup", lookup_order=order)
    config, table = learn_table(tokenizer, documents, 0, config)
    scores = slow_scores(tokenizer, documents, order)
    for context in torch.cartesian_prod(*[torch.arange(260)] * order).reshape(-1, order).tolist():
        known = tuple(context)
        while known and known not in scores:
            known = known[1:]  # what was not seen is as what is seen of it
        key = sum(value * 260**back for back, value in enumerate(reversed(context)))
        assert bool(table[key]) == (scores.get(known, 0.0) > config.threshold), context


def test_a_table_cuts_much_as_the_tokenizer_does(tokenizer: ByteTokenizer) -> None:
    documents = [vocab.encode(text * 20) for text in TEXTS[:2]]
    wanted = torch.cat([tokens_of(tokenizer, ids).decisions[:-1] for ids in documents])
    config = PatchingConfig(rule="lookup", lookup_order=3)
    _, table = learn_table(tokenizer, documents, 0.0, config)
    cut = torch.cat([decide(config, ids, lookup=table)[:-1] for ids in documents])
    assert cut.eq(wanted).float().mean() > 0.95
    assert int(cut.sum()) == pytest.approx(int(wanted.sum()), rel=0.1)


def test_a_table_cuts_longer_patches_if_asked_to(tokenizer: ByteTokenizer) -> None:
    documents = [vocab.encode(text * 20) for text in TEXTS[:2]]
    config = PatchingConfig(rule="lookup", lookup_order=1)
    counts = []
    for target in (0.0, 12.0):
        _, table = learn_table(tokenizer, documents, target, config)
        counts.append(sum(int(decide(config, ids, lookup=table).sum()) for ids in documents))
    assert counts[1] < counts[0]
