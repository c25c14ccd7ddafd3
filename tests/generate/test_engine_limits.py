"""What does not fit waits or is refused by name, and what fails takes nobody with it."""

from __future__ import annotations

import threading
from itertools import product

import pytest
import torch

import blt
from blt.errors import UserError
from blt.generate import ClosedError, Engine, RefusedError
from blt.generate.captured.writer import CapturedWriter
from shapes import TINY, TINY_BLT, random_blt

pytestmark = pytest.mark.usefixtures("form")


def test_what_cannot_fit_is_refused_by_name() -> None:
    lm = blt.BLT(TINY_BLT)
    engine = Engine(lm, max_batch=1, max_queue=2, memory_budget=10_000_000)
    with pytest.raises(UserError, match=r"max_bytes 1000000 can need 320.2 MB .* memory_budget"):
        engine.submit("x", max_bytes=1_000_000)
    with pytest.raises(UserError, match="a prompt of 900000 bytes"):
        engine.submit(b"x" * 900_000)
    engine.submit("a")
    engine.submit("b")
    with pytest.raises(RefusedError, match="2 requests are waiting"):
        engine.submit("c")
    engine.run()
    assert engine.submit("c", max_bytes=2).result().finish_reason in ("length", "eos")


def test_a_request_that_fits_the_budget_to_the_byte_is_written() -> None:
    lm = blt.BLT(TINY_BLT)
    alone = Engine(lm, max_batch=1)
    exact = alone._memory_of(11) + alone._working_of(2)
    engine = Engine(lm, max_batch=1, memory_budget=exact)
    handle = engine.submit("x", max_bytes=10, ignore_eos=True)
    assert len(handle.result().data) == 10
    with pytest.raises(UserError, match="memory_budget"):
        Engine(lm, max_batch=1, memory_budget=exact - 1).submit("x", max_bytes=10)


def test_requests_wait_for_memory(form: str) -> None:
    """Captured steps keep rows for a power of two of texts."""
    lm = blt.BLT(TINY_BLT)
    alone = Engine(lm, max_batch=1)
    working = alone._working_of(2)
    engine = Engine(lm, max_batch=8, memory_budget=3 * alone._memory_of(101) + working)
    handles = [engine.submit("x", max_bytes=100, ignore_eos=True) for _ in range(7)]
    engine.step()
    assert len(engine.model.texts) == (3 if form == "driven" else 2)
    engine.run()
    assert all(len(handle.result().data) == 100 for handle in handles)


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"top_p": 0}, "top_p"),
        ({"top_p": 1.5}, "top_p"),
        ({"temperature": -0.1}, "temperature"),
        ({"temperature": float("nan")}, "temperature"),
        ({"top_k": 0}, "top_k"),
        ({"min_p": 2}, "min_p"),
        ({"repetition_penalty": 0}, "repetition_penalty"),
        ({"repetition_penalty": 1e-300}, "repetition_penalty"),
        ({"max_bytes": -1}, "max_bytes"),
        ({"stop": ("a", "")}, "stop"),
        ({"stop": ""}, "stop"),
        ({"draft_bytes": 32}, "draft_bytes"),
        ({"max_batch": 0}, "max_batch"),
        ({"precision": "int3"}, "int3"),
        ({"max_bytes": 3.5}, "max_bytes must be a whole number"),
        ({"temperature": "hot"}, "temperature must be a number"),
        ({"seed": -1}, "seed"),
        ({"stop": [3]}, "stop must be str or bytes, got int"),
        ({"stop": 3}, "stop must be str or bytes, got int"),
        ({"state": "foo"}, "state must come from"),
        ({"memory_budget": "1GB"}, "memory_budget"),
        ({"max_batch": True}, "max_batch"),
        ({"max_tokens": 5}, "unknown option 'max_tokens'; did you mean 'max_bytes'"),
    ],
)
def test_impossible_parameters_are_refused_by_name(options: dict[str, object], named: str) -> None:
    with pytest.raises(UserError, match=named):
        blt.BLT(TINY_BLT).generate(["x"], **options)


@pytest.mark.parametrize("prompts", [None, 5, [1, 2], ["fine", None], "\ud800"])
def test_what_is_no_text_is_refused_by_name(prompts: object) -> None:
    with pytest.raises(UserError, match=r"must be str or bytes|surrogate"):
        blt.BLT(TINY_BLT).generate(prompts)  # type: ignore[call-overload]


def test_a_byte_model_cannot_draft() -> None:
    with pytest.raises(UserError, match="draft_bytes"):
        blt.ByteLM(TINY).generate("x", draft_bytes=4)


def last_step(engine: Engine) -> tuple[object, str]:
    """Where logits [B, n, 260] of a step come from."""
    writer = engine._writer
    return (
        (writer.steps, "_decode")
        if isinstance(writer, CapturedWriter)
        else (engine.model, "extend")
    )


def test_a_request_that_fails_leaves_the_others_untouched(monkeypatch: pytest.MonkeyPatch) -> None:
    lm = random_blt()
    expected = lm.generate("healthy", max_bytes=30)
    engine = Engine(lm, max_batch=3)
    healthy, ill = engine.submit("healthy", max_bytes=30), engine.submit("ill", max_bytes=30)
    for _ in range(3):
        engine.step()
    owner, name = last_step(engine)
    step = getattr(owner, name)

    def broken(*args: object) -> torch.Tensor:
        logits = step(*args).clone()
        logits[1] = torch.nan
        return logits

    monkeypatch.setattr(owner, name, broken)
    engine.step()
    monkeypatch.undo()
    read = engine.model.prefill

    monkeypatch.setattr(engine.model, "prefill", out_of_memory)
    unread = engine.submit("unread", max_bytes=30)
    while not unread.finished:
        engine.step()
    monkeypatch.setattr(engine.model, "prefill", read)
    engine.run()
    assert ill.result().finish_reason == unread.result().finish_reason == "error"
    assert "out of memory" in str(unread.result().error)
    assert healthy.result().data == expected.data
    assert engine.submit("healthy", max_bytes=30).result().data == expected.data


def test_a_text_that_is_not_finite_leaves_nothing_behind() -> None:
    lm = random_blt()
    expected = lm.generate("healthy", max_bytes=30)
    engine = Engine(lm, max_batch=2, native=False)
    healthy, ill = engine.submit("healthy", max_bytes=30), engine.submit("ill", max_bytes=99)
    for _ in range(3):
        engine.step()
    engine.model.rings[0].memory[1] = torch.nan
    engine.run()
    assert ill.result().finish_reason == "error"
    assert "not finite" in str(ill.result().error)
    assert healthy.result().data == expected.data
    again = [engine.submit("healthy", max_bytes=30) for _ in range(2)]
    engine.run()
    assert [handle.result().data for handle in again] == [expected.data] * 2


def test_a_thread_that_fails_tells_who_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threading, "excepthook", lambda _: None)
    engine = Engine(random_blt(), max_batch=1)

    def broken(*_: object) -> torch.Tensor:
        raise ValueError("no such thing")

    monkeypatch.setattr(*last_step(engine), broken)
    with engine:
        result = engine.submit("x", max_bytes=9, ignore_eos=True).result()
    assert result.finish_reason == "error"
    assert "no such thing" in str(result.error)


def out_of_memory(*_: object) -> None:
    raise RuntimeError("out of memory")


@pytest.mark.parametrize(("move", "without"), [("swap", 0), ("fork", 1)])
def test_a_text_without_memory_for_its_copy_or_its_place_takes_nobody_with_it(
    move: str, without: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One more is written meanwhile, and a long prompt lies half read in the row before."""
    monkeypatch.setattr("blt.generate.reading.PIECE_BYTES", 64)
    lm, long = random_blt(), b"a long prompt " * 20
    engine = Engine(lm, max_batch=5)
    stream = engine.submit("stream", max_bytes=60)
    engine.step()
    other = engine.submit(long, max_bytes=20)
    engine.step()
    same = [engine.submit("same", max_bytes=20) for _ in range(2)]
    works = getattr(engine.model, move)

    def fails_once(*_: object) -> None:
        monkeypatch.setattr(engine.model, move, works)
        raise RuntimeError("out of memory")

    monkeypatch.setattr(engine.model, move, fails_once)
    engine.run()
    assert "out of memory" in str(same.pop(without).result(timeout=60).error)
    for handle, prompt, most in (
        (stream, b"stream", 60),
        (other, long, 20),
        (same[0], b"same", 20),
    ):
        assert handle.result(timeout=60).data == lm.generate(prompt, max_bytes=most).data
    assert engine.model.texts == []


def test_a_prompt_that_cannot_be_read_on_after_a_state_leaves_the_rows_of_others(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    lm = random_blt()
    engine = Engine(lm, max_batch=2)
    healthy = engine.submit("healthy", max_bytes=30)
    engine.step()
    monkeypatch.setattr(engine.model, "read_on", out_of_memory)
    ill = engine.submit("ill", state=lm.read("To be, or "), max_bytes=30)
    while not ill.finished:
        engine.step()
    monkeypatch.undo()
    assert "out of memory" in str(ill.result(timeout=60).error)
    assert healthy.result(timeout=60).data == lm.generate("healthy", max_bytes=30).data
    assert engine.model.texts == []


@pytest.mark.parametrize(
    ("place", "threaded"),
    [
        *product(["fork", "swap", "_patches_read", "join"], [True, False]),
        ("on_step", True),  # without a thread nobody is told of steps
    ],
)
def test_whatever_fails_in_the_engine_ends_all_requests_with_its_cause(
    place: str, threaded: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those that wait, are being read or written, and those on their way from one to the next."""
    monkeypatch.setattr(threading, "excepthook", lambda _: None)
    engine = Engine(random_blt(), max_batch=4)
    options = {"max_bytes": 100_000, "ignore_eos": True}
    handles = [engine.submit("written", **options)]
    engine.step()
    handles += [engine.submit(prompt, **options) for prompt in ("a", "same", "same", "waits")]

    def broken(*_: object) -> None:
        raise ValueError("no such thing")

    owners = {"fork": engine.model, "swap": engine.model, "join": engine._writer}
    monkeypatch.setattr(owners.get(place, engine), place, broken)
    if threaded:
        with engine:
            results = [handle.result(timeout=60) for handle in handles]
    else:
        with pytest.raises(ValueError, match="no such thing"):
            engine.run()
        results = [handle.result(timeout=60) for handle in handles]
        engine.close()
    assert {result.finish_reason for result in results} == {"error"}
    assert all("no such thing" in str(result.error) for result in results)
    with pytest.raises(ClosedError, match=r"no such thing.*make another"):
        engine.submit("too late")


def test_narrow_caches_need_half_of_the_room() -> None:
    engine = Engine(blt.BLT(TINY_BLT), max_batch=1, precision="float32")
    memory, lm = type(engine.model).memory, blt.BLT(TINY_BLT)
    own = engine._memory_of(5000) - engine._writer.besides(5000)
    assert own == memory(lm, 5000) == 2 * memory(lm, 5000, torch.bfloat16)
