"""Requests in a batch write what they write alone, whoever joins, ends or is cancelled."""

from __future__ import annotations

import contextlib
import random
import threading
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import blt
from blt.errors import UserError
from blt.generate import ClosedError, Engine, RefusedError, Sampling
from blt.generate.request import Request
from engines import fewer, greedy_by_full_forwards
from shapes import TINY, random_blt
from texts import MULTILINGUAL

pytestmark = pytest.mark.usefixtures("form")


@pytest.mark.parametrize("rule", ["entropy", "entropy-monotonic", "space", "static", "byte"])
@pytest.mark.parametrize("draft_bytes", [0, 4])
def test_greedy_bytes_are_those_of_full_forwards(rule: str, draft_bytes: int) -> None:
    lm = random_blt(rule=rule, newline_reset=True, max_patch_length=6)
    prompts = [b"", b"x", MULTILINGUAL[:150], b"\xff\xfe\n\x00" * 9]
    results = lm.generate(prompts, max_bytes=24, draft_bytes=draft_bytes)
    for prompt, found in zip(prompts, results, strict=True):
        assert found.data == greedy_by_full_forwards(lm, prompt, 24)
        assert found.finish_reason == ("length" if len(found.data) == 24 else "eos")


def random_prompt(chance: random.Random) -> bytes:
    kind = chance.randrange(6)
    if kind < 3:
        return chance.randbytes(chance.choice([0, 1, chance.randrange(80)]))
    at = chance.randrange(1000)
    return (b"\xff\xc3(\xf0\x9f" * 40, MULTILINGUAL[at : at + 60], MULTILINGUAL[:2000])[kind - 3]


@settings(max_examples=10)
@given(st.integers(1, 32), st.integers(1, 6), st.sampled_from([0, 3]), st.integers(0, 2**32))
def test_whoever_joins_ends_or_is_cancelled_the_others_write_what_they_write_alone(
    form: str, count: int, max_batch: int, draft_bytes: int, seed: int
) -> None:
    chance, count = random.Random(seed), fewer(form, count, 4)
    texts = [random_prompt(chance) for _ in range(count)]
    lm = random_blt()
    engine = Engine(lm, max_batch=max_batch, draft_bytes=draft_bytes)
    samplings = [
        Sampling(
            max_bytes=chance.choice([0, 1, 7, 40]),
            temperature=chance.choice([0.0, 1.0]),
            top_k=chance.choice([None, 20]),
            repetition_penalty=chance.choice([1.0, 1.3]),
            valid_utf8=chance.random() < 0.3,
            stop=chance.choice([(), (b"e",), (b"ab", b"\n")]),
            seed=index,
        )
        for index in range(len(texts))
    ]
    handles, cancelled, waiting = [], set(), list(range(len(texts)))
    while waiting or not all(handle.finished for handle in handles):
        for _ in range(chance.randint(0, 3)):
            if waiting:
                index = waiting.pop(0)
                handles.append(engine.submit(texts[index], samplings[index]))
        if handles and chance.random() < 0.1:
            index = chance.randrange(len(handles))
            if not handles[index].finished:
                handles[index].cancel()
                cancelled.add(index)
        engine.step()
    alone = Engine(lm, max_batch=1, draft_bytes=draft_bytes)
    for index, handle in enumerate(handles):
        expected = alone.submit(texts[index], samplings[index]).result()
        found = handle.result()
        if index in cancelled and found.finish_reason == "cancelled":
            assert expected.data.startswith(found.data)
        else:
            assert found.data == expected.data
            assert found.finish_reason == expected.finish_reason
            assert found.starts == expected.starts
            assert found.logprobs == pytest.approx(expected.logprobs, abs=1e-3)
    assert engine.model.texts == []


def test_speculation_writes_the_same_20000_greedy_bytes(form: str) -> None:
    lm = random_blt(max_patch_length=8)
    texts = [bytes([index, 255 - index]) * 3 for index in range(16)]
    options = {"max_bytes": fewer(form, 1300, 10), "ignore_eos": True}
    plain = lm.generate(texts, **options)
    assert sum(len(result.data) for result in plain) >= fewer(form, 20_000, 10)
    for draft_bytes in (3, 8):
        found = lm.generate(texts, draft_bytes=draft_bytes, **options)
        assert [result.data for result in found] == [result.data for result in plain]
        assert [result.starts for result in found] == [result.starts for result in plain]
        assert all(result.drafted >= result.accepted > 0 for result in found)


def test_logprobs_are_those_of_the_model() -> None:
    lm = random_blt()
    found = lm.generate("abc", max_bytes=30, temperature=1.5, seed=4)
    ids = blt.encode(b"abc" + found.data)
    log_p = torch.log_softmax(lm.logits(ids), -1)
    expected = log_p[3:-1].gather(1, ids[4:, None])[:, 0].tolist()
    assert found.logprobs == pytest.approx(expected, abs=1e-3)


def test_starts_are_the_boundaries_of_the_text() -> None:
    lm = random_blt()
    found = lm.generate(MULTILINGUAL[:70], max_bytes=80, temperature=1.0)
    starts = lm.patch(MULTILINGUAL[:70] + found.data).starts.tolist()
    assert found.starts == starts[71:]
    assert b"".join(found.patches) == found.data


def test_threads_may_submit_read_and_cancel() -> None:
    lm = random_blt()
    expected = lm.generate([b"%d" % i for i in range(24)], max_bytes=25, temperature=1.0)
    found: dict[int, bytes] = {}
    with Engine(lm, max_batch=4) as engine:
        endless = engine.submit("endless", max_bytes=100_000, ignore_eos=True)

        def use(first: int) -> None:
            for i in range(first, 24, 3):
                handle = engine.submit(b"%d" % i, max_bytes=25, temperature=1.0, seed=i)
                found[i] = b"".join(handle)

        threads = [threading.Thread(target=use, args=(first,)) for first in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(timeout=60)
        endless.cancel()
        assert endless.result().finish_reason == "cancelled"
        last = engine.submit("0", max_bytes=25, temperature=1.0)
    assert last.finished
    assert last.result().data == expected[0].data
    assert [found[i] for i in range(24)] == [result.data for result in expected]
    with pytest.raises(UserError, match="closed"):
        engine.submit("too late")


def test_an_exception_or_close_cancels_what_is_unfinished() -> None:
    lm = random_blt()
    with contextlib.suppress(KeyError), Engine(lm) as engine:
        left = engine.submit("left", max_bytes=100_000, ignore_eos=True)
        raise KeyError
    assert left.result().finish_reason == "cancelled"
    engine = Engine(lm)
    finished = engine.submit("x", max_bytes=5, ignore_eos=True)
    engine.close()
    assert finished.result().finish_reason == "length"
    with Engine(lm) as engine:
        slow = engine.submit("slow", max_bytes=100_000, ignore_eos=True)
        with pytest.raises(TimeoutError, match="not finished after"):
            slow.result(timeout=0.01)
        engine.close(cancel=True)
    assert slow.result().finish_reason == "cancelled"


@pytest.mark.parametrize("where", ["prefill", "extend", "commit"])
def test_ctrl_c_in_a_step_ends_all_and_nothing_is_gone_on_with(
    where: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was half done would be read as if it were whole."""
    engine = Engine(random_blt(), captured=False)
    handles = [engine.submit(text, max_bytes=30, ignore_eos=True) for text in ("one", "two")]
    usual = getattr(engine.model, where)

    def interrupted(*arguments: Any) -> None:
        usual(*arguments)
        raise KeyboardInterrupt

    monkeypatch.setattr(engine.model, where, interrupted)
    with pytest.raises(KeyboardInterrupt):
        engine.run()
    monkeypatch.undo()
    assert {handle.result().finish_reason for handle in handles} == {"error"}
    with pytest.raises(ClosedError, match="the engine has failed: KeyboardInterrupt"):
        engine.submit("three")


def test_a_request_that_is_cancelled_while_others_are_forgotten_ends(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    engine = Engine(random_blt(), max_batch=1, max_queue=3)
    handles = [engine.submit(text, max_bytes=3, ignore_eos=True) for text in ("one", "two", "b")]
    usual = Request.ended

    def ended(request: Request) -> bool:
        found = usual(request)
        if request.prompt == b"two":
            handles[2].cancel()  # by another thread, in between
            handles[1].cancel()
        return found

    handles[0].cancel()
    monkeypatch.setattr(Request, "ended", ended)
    engine.run()
    reasons = [handle.result(timeout=5).finish_reason for handle in handles]
    assert reasons == ["cancelled"] * 3


@given(st.binary(max_size=60), st.integers(0, 12))
def test_a_byte_model_writes_too(prompt: bytes, count: int) -> None:
    torch.manual_seed(0)
    lm = blt.ByteLM(TINY)
    found = lm.generate([prompt, b"other"], max_bytes=count)
    assert found[0].data == greedy_by_full_forwards(lm, prompt, count)


def test_drafts_of_one_text_are_no_concern_of_the_others() -> None:
    """Each has its own number of drafts; what it writes does not depend on theirs."""
    lm = random_blt()
    drafts = [0, 5, 2, 0]

    def write(batch: int) -> list[tuple[bytes, list[bool | None]]]:
        engine = Engine(lm, max_batch=batch)
        handles = [
            engine.submit(b"x", max_bytes=40, temperature=1.0, seed=i, draft_bytes=k)
            for i, k in enumerate(drafts)
        ]
        engine.run()
        return [(handle.piece().data, handle.piece().kept) for handle in handles]

    together = write(4)
    assert together == write(1)
    assert all(kept is None for kept in together[0][1])
    assert True in together[1][1]
    assert together[0][0] == lm.generate(b"x", max_bytes=40, temperature=1.0).data
    with pytest.raises(UserError, match="draft_bytes"):
        Engine(lm).submit(b"x", draft_bytes=1000)
    with pytest.raises(UserError, match="draft_bytes"):
        Engine(blt.ByteLM(TINY)).submit(b"x", draft_bytes=1)


def test_a_piece_tells_of_each_byte_its_alternatives_and_of_the_prompt_its_patches() -> None:
    lm = random_blt()
    for prompt in (b"", b"x", MULTILINGUAL[:100]):
        engine = Engine(lm, max_batch=1)
        handle = engine.submit(prompt, max_bytes=20, alternatives=3)
        engine.run()
        piece = handle.piece(5)
        logits = lm.logits(blt.encode(prompt + handle.piece().data))[len(prompt) + 5]
        expected = logits.log_softmax(-1)[4:].topk(3)
        assert [byte for byte, _ in piece.top[0]] == expected.indices.tolist()
        assert [nats for _, nats in piece.top[0]] == pytest.approx(
            expected.values.tolist(), abs=1e-4
        )
        assert piece.data == handle.result().data[5:]
        assert piece.finish_reason == "length"
        assert handle.result().prompt_patches == int(lm.patch(prompt).starts[1:].sum())


def test_cancelled_requests_give_up_their_places_in_the_queue() -> None:
    engine = Engine(random_blt(), max_batch=1, max_queue=2)
    first, second = engine.submit(b"a"), engine.submit(b"b")
    with pytest.raises(RefusedError):
        engine.submit(b"c")
    first.cancel()
    third = engine.submit(b"c", max_bytes=3)
    assert first.result().finish_reason == "cancelled"
    second.cancel()
    assert third.result().finish_reason == "length"


def test_on_step_is_told_of_every_end() -> None:
    """Also of that of an engine that fails, or who waits for it would wait forever."""
    seen = []
    engine = Engine(random_blt(), max_batch=2)
    with engine:
        handle = engine.submit(b"x", max_bytes=5, ignore_eos=True)
        engine.on_step = lambda: seen.append(handle.finished)
    assert seen[-1]
