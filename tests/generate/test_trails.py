"""Texts whose patches a router cuts are written with caches as full forwards would write them."""

from __future__ import annotations

import random

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import blt
from blt.errors import UserError
from blt.generate.caches.rings import MAX_ROWS
from blt.generate.cpp import library
from blt.generate.engine import Engine
from blt.generate.incremental import CachedModel
from blt.generate.incremental_blt import CachedBLT, cached
from blt.generate.weights import packed
from blt.vocab import OFFSET, encode
from shapes import random_blt
from texts import MULTILINGUAL


def relative(found: torch.Tensor, expected: torch.Tensor) -> float:
    return float((found - expected).abs().max() / expected.abs().max())


@pytest.fixture(scope="module")
def lm() -> blt.BLT:
    return random_blt("learned", max_patch_length=9)


@pytest.fixture(scope="module", params=["PyTorch", "C++"])
def form(request: pytest.FixtureRequest, lm: blt.BLT) -> blt.BLT:
    if request.param == "PyTorch":
        return lm
    if library() is None:
        pytest.skip("no C++ compiler")
    return packed(lm, "float32", native=True)


def read(model: CachedModel, document: bytes) -> CachedModel:
    model.read([encode(document).tolist()])
    return model


@given(st.binary(max_size=200), st.integers(1, 200), st.data())
def test_what_is_taken_back_leaves_no_trace(
    lm: blt.BLT, form: blt.BLT, text: bytes, read_bytes: int, data: st.DataObject
) -> None:
    ids = encode(text)
    expected = lm.logits(ids)
    model = cached(form, 1)
    at = min(read_bytes, len(ids))
    model.read([ids[:at].tolist()])
    while at < len(ids):
        kept = min(data.draw(st.integers(1, MAX_ROWS)), len(ids) - at)
        tried = data.draw(st.lists(st.integers(4, 259), max_size=MAX_ROWS - kept))
        logits = model.extend([[*ids[at : at + kept].tolist(), *tried]])
        model.commit([kept])
        assert relative(logits[0, :kept], expected[at : at + kept]) < 1e-4
        at += kept


@given(st.lists(st.binary(min_size=1, max_size=80), min_size=2, max_size=4), st.randoms())
def test_texts_of_a_batch_do_not_see_each_other(
    lm: blt.BLT, form: blt.BLT, texts: list[bytes], chance: random.Random
) -> None:
    documents = [encode(text) for text in texts]
    expected = [lm.logits(ids) for ids in documents]
    at = [chance.randint(1, len(ids)) for ids in documents]
    model = cached(form, len(texts))
    model.read([ids[:n].tolist() for ids, n in zip(documents, at, strict=True)])
    for row, n in enumerate(at):
        assert relative(model.logits[row], expected[row][n - 1]) < 1e-4
    while min(len(ids) - n for ids, n in zip(documents, at, strict=True)) > 0:
        logits = model.extend([[int(ids[n])] for ids, n in zip(documents, at, strict=True)])
        model.commit([1] * len(texts))
        for row, n in enumerate(at):
            assert relative(logits[row, 0], expected[row][n]) < 1e-4
        at = [n + 1 for n in at]


@given(st.binary(min_size=2, max_size=100), st.binary(max_size=40), st.binary(max_size=40))
def test_saved_and_forked_texts_go_on_apart(
    lm: blt.BLT, form: blt.BLT, shared: bytes, one: bytes, other: bytes
) -> None:
    model = read(read(cached(form, 4), b"another text"), shared)
    saved = model.save(1)
    model.fork(1)
    model.swap(0, 2)
    model.read_on(1, encode(one, bos=False).tolist())
    model.read_on(0, encode(other, bos=False).tolist())
    model.load(saved)
    model.read_on(3, encode(other, bos=False).tolist())
    expected = lm.logits([encode(shared + one), encode(shared + other)])
    assert relative(model.logits[1], expected[0][-1]) < 1e-4
    assert relative(model.logits[0], expected[1][-1]) < 1e-4
    assert relative(model.logits[3], expected[1][-1]) < 1e-4


def test_drafts_leave_no_trace(lm: blt.BLT, form: blt.BLT) -> None:
    ids = encode(MULTILINGUAL[:300]).tolist()
    expected = lm.logits(torch.tensor(ids))
    model = cached(form, 1)
    assert isinstance(model, CachedBLT)
    model.read([ids[:100]])
    for at in range(100, 290, 7):
        for n in range(1, 5):
            model.draft([[*ids[at : at + 1], *range(20, 19 + n)]])
        logits = model.extend([ids[at : at + 7]])
        model.commit([7])
        assert relative(logits[0], expected[at : at + 7]) < 1e-4


@pytest.mark.parametrize("draft_bytes", [0, 4])
def test_greedy_bytes_are_those_of_full_forwards(lm: blt.BLT, draft_bytes: int) -> None:
    prompts = [b"x", MULTILINGUAL[:150]]
    results = lm.generate(prompts, max_bytes=40, draft_bytes=draft_bytes, ignore_eos=True)
    for prompt, found in zip(prompts, results, strict=True):
        assert len(found.data) == 40
        logits = lm.logits(encode(prompt + found.data))[len(prompt) : -1]
        assert (logits[:, OFFSET:].argmax(1)).tolist() == list(found.data)


def test_captured_steps_are_refused(lm: blt.BLT) -> None:
    with pytest.raises(UserError, match="'learned' cuts between the layers"):
        Engine(lm, captured=True)
