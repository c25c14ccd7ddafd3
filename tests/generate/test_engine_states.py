"""Prompts of ids, equal prompts, and texts that go on from what was read."""

from __future__ import annotations

import random
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import blt
from blt.errors import UserError
from blt.generate import Engine
from engines import fewer, greedy_by_full_forwards
from shapes import random_blt
from texts import MULTILINGUAL

pytestmark = pytest.mark.usefixtures("form")


def test_equal_prompts_are_read_once() -> None:
    lm = random_blt()
    engine = Engine(lm, max_batch=8)
    prompt = MULTILINGUAL[:500]
    handles = [engine.submit(prompt, max_bytes=20, temperature=1.0, seed=seed) for seed in range(8)]
    engine.step()
    assert engine.model.counts.encoder == 501 + 8
    engine.run()
    results = [handle.result().data for handle in handles]
    assert len(set(results)) > 1
    for seed, found in enumerate(results):
        assert lm.generate(prompt, max_bytes=20, temperature=1.0, seed=seed).data == found


@pytest.mark.parametrize("draft_bytes", [0, 3])
def test_a_prompt_of_ids_is_read_as_it_is(draft_bytes: int) -> None:
    """Special ids among them included; the same ids are read once, others apart."""
    lm = random_blt()
    parts = [blt.encode("user\nhow", eos=True), blt.encode("assistant\n", bos=False)]
    marked, plain = torch.cat(parts), blt.encode("user\nhowassistant\n")
    engine = Engine(lm, draft_bytes=draft_bytes)
    prompts = [marked, plain, marked, b"user\nhowassistant\n"]
    handles = [engine.submit(prompt, max_bytes=20) for prompt in prompts]
    engine.run()
    written = [handle.result().data for handle in handles]
    expected = [greedy_by_full_forwards(lm, ids, 20) for ids in (marked, plain)]
    assert written == [*expected, *expected]
    assert handles[0].result().prompt == b"user\nhowassistant\n"
    assert handles[0].result().prompt_patches == int(lm.patch(marked).starts[1:].sum())


def test_a_prompt_of_ids_begins_a_document() -> None:
    engine = Engine(random_blt())
    with pytest.raises(UserError, match=r"must begin with BOS \(1\)"):
        engine.submit(blt.encode("x", bos=False))
    with pytest.raises(UserError, match="cannot go on with a state"):
        engine.submit(blt.encode("x"), state=engine.read("y"))
    with pytest.raises(ValueError, match="id 260 at position 1 is outside"):
        engine.submit(torch.tensor([1, 260]))


def test_a_text_that_was_read_can_be_continued_any_number_of_times() -> None:
    lm = random_blt()
    state = lm.read("To be, or ")
    for rest in (b"", b"not to be", b"\xff"):
        expected = lm.generate(b"To be, or " + rest, max_bytes=25)
        assert lm.generate(rest, state=state, max_bytes=25).data == expected.data


def test_a_state_is_continued_by_the_model_that_read_it_alone() -> None:
    """Also one of the same shape, which would take it and write something wrong."""
    lm, other = random_blt(), random_blt()
    state = Engine(lm).read("To be, or ")
    assert lm.generate("not", state=state, max_bytes=3).data
    for who in (other, random_blt(rule="byte")):
        with pytest.raises(UserError, match="the state is of another model: read its text with"):
            who.generate("not", state=state, max_bytes=3)
    del lm
    with pytest.raises(UserError, match="the state is of another model"):
        other.generate("not", state=state)


@pytest.mark.parametrize("threshold", [-50.0, 50.0])
def test_a_state_goes_on_with_the_threshold_as_it_is_by_then(threshold: float) -> None:
    lm = random_blt("entropy")
    state = lm.read("To be, or ")
    lm.threshold = threshold
    found = lm.generate("not", state=state, max_bytes=40, ignore_eos=True)
    assert sum(found.starts[1:]) == (39 if threshold < 0 else 0)


def test_a_text_that_could_not_be_read_leaves_nothing_behind(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    lm = random_blt()
    engine = Engine(lm, captured=False)
    usual = engine.model.prefill

    def fails(*arguments: Any) -> None:
        usual(*arguments)
        raise MemoryError

    monkeypatch.setattr(engine.model, "prefill", fails)
    with pytest.raises(MemoryError):
        engine.read("a long text")
    monkeypatch.undo()
    found = engine.submit("hello there", max_bytes=20).result()
    assert found.data == lm.generate("hello there", max_bytes=20).data


@pytest.mark.parametrize("precision", ["bfloat16", "int8"])
def test_a_text_that_was_read_goes_on_beside_others_in_another_precision(precision: Any) -> None:
    lm = random_blt("static", stride=1)  # both texts have a new patch in every step
    engine = Engine(lm, max_batch=2, precision=precision, captured=False)
    reader = engine.submit("not to be", state=lm.read("To be, or "), max_bytes=300)
    for _ in range(5):
        engine.step()
    other = engine.submit(b"Once upon a time there was a man. " * 8, max_bytes=200)
    while not other.finished:
        engine.step()
        memories = [text.patches.memory for text in engine.model.texts if text.patches]
        assert {memory.dtype for memory in memories} <= {engine.model.dtype}
    engine.run()
    assert [reader.result().finish_reason, other.result().finish_reason] == ["length", "length"]


def test_a_long_prompt_stops_nobody_else(monkeypatch: pytest.MonkeyPatch) -> None:
    """Between two bytes of others at most a piece of it is read, and nothing once it is left."""
    monkeypatch.setattr("blt.generate.reading.PIECE_BYTES", 256)
    lm = random_blt(rule="byte")
    engine = Engine(lm, max_batch=3)
    stream = engine.submit("stream", max_bytes=400, ignore_eos=True)
    engine.step()
    long = engine.submit(b"a" * 3000, max_bytes=5)
    read = engine.model.counts.encoder
    while engine.model.counts.encoder - read < 300:
        before, written = engine.model.counts.encoder, stream.available
        engine.step()
        assert stream.available == written + 1
        assert engine.model.counts.encoder - before <= 1 + 64 + 40
    tiny = engine.submit("tiny", max_bytes=3, ignore_eos=True)
    expected = lm.generate("tiny", max_bytes=3, ignore_eos=True).data
    assert tiny.result().data == expected
    assert not long.finished
    long.cancel()
    engine.step()
    assert long.finished
    assert len(engine.model.texts) == 1
    left = engine.model.counts.encoder
    engine.step()
    assert engine.model.counts.encoder == left + 1
    assert stream.result().data == lm.generate("stream", max_bytes=400, ignore_eos=True).data


@settings(max_examples=6)
@given(st.integers(0, 2**32))
def test_long_prompts_read_beside_others_are_continued_as_alone(form: str, seed: int) -> None:
    """Equal ones are read once; some are cancelled while they are read, some go on a state."""
    chance = random.Random(seed)
    lm = random_blt()
    state = lm.read("To be, or ")
    prompts = [b"a" * 150, MULTILINGUAL[:300], b"short", MULTILINGUAL[:70]]
    engine = Engine(lm, max_batch=5)
    handles = []
    for _ in range(fewer(form, 12, 2)):
        prompt, on = chance.choice(prompts), chance.random() < 0.2
        options = {
            "max_bytes": chance.randrange(fewer(form, 30, 3)),
            "state": state if on else None,
        }
        handles.append((engine.submit(prompt, **options), prompt, options))  # type: ignore[arg-type]
        if chance.random() < 0.2:
            chance.choice(handles)[0].cancel()
        for _ in range(chance.randrange(6)):
            engine.step()
    engine.run()
    assert engine.model.texts == []
    for handle, prompt, options in handles:
        found, expected = handle.result(), lm.generate(prompt, **options)  # type: ignore[arg-type]
        if found.finish_reason != "cancelled":
            assert (found.data, found.starts) == (expected.data, expected.starts)
