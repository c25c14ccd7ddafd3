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
from blt.generate import Engine, RefusedError, Sampling
from blt.generate.request import Request
from blt.generate.utf8 import state_of
from shapes import TINY, random_blt
from texts import MULTILINGUAL

pytestmark = pytest.mark.usefixtures("form")


def greedy_by_full_forwards(
    lm: blt.BLT | blt.ByteLM, prompt: bytes | torch.Tensor, count: int
) -> bytes:
    """What greedy generation must write, without any cache."""
    ids = prompt if isinstance(prompt, torch.Tensor) else blt.encode(prompt)
    written = bytearray()
    for _ in range(count):
        logits = lm.logits(ids)[-1]
        logits[[blt.vocab.BOE, blt.vocab.BOS, blt.vocab.BPE]] = -torch.inf
        token = int(logits.argmax())
        if token == blt.vocab.EOS:
            break
        written.append(token - blt.vocab.OFFSET)
        ids = torch.cat((ids, ids.new_tensor([token])))
    return bytes(written)


@pytest.mark.parametrize("rule", ["entropy", "entropy-monotonic", "space", "static", "byte"])
@pytest.mark.parametrize("draft_bytes", [0, 4])
def test_greedy_bytes_are_those_of_full_forwards(rule: str, draft_bytes: int) -> None:
    lm = random_blt(rule=rule, newline_reset=True, max_patch_length=6)
    prompts = [b"", b"x", MULTILINGUAL[:150], b"\xff\xfe\n\x00" * 9]
    results = lm.generate(prompts, max_bytes=60, draft_bytes=draft_bytes)
    for prompt, found in zip(prompts, results, strict=True):
        assert found.data == greedy_by_full_forwards(lm, prompt, 60)
        assert found.finish_reason == ("length" if len(found.data) == 60 else "eos")


def fewer(form: str, count: int, by: int) -> int:
    """Captured steps that are just called take long."""
    return -(-count // by) if form == "captured" else count


def random_prompt(chance: random.Random) -> bytes:
    kind = chance.randrange(6)
    if kind < 3:
        return chance.randbytes(chance.choice([0, 1, chance.randrange(80)]))
    at = chance.randrange(1000)
    return (b"\xff\xc3(\xf0\x9f" * 40, MULTILINGUAL[at : at + 60], MULTILINGUAL[:2000])[kind - 3]


@settings(max_examples=12)
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


# --- handles and threads ------------------------------------------------------------------------


def test_text_comes_in_whole_characters() -> None:
    lm = random_blt()
    engine = Engine(lm, max_batch=1)
    options = {"max_bytes": 200, "temperature": 2.0, "ignore_eos": True}
    pieces = list(engine.submit("", valid_utf8=True, **options).text())
    assert "�" not in "".join(pieces)
    assert len("".join(pieces).encode()) <= 200
    raw = engine.submit("", **options)
    streamed = b"".join(raw)
    assert streamed == raw.result().data
    assert "".join(engine.submit("", **options).text()) == streamed.decode("utf-8", "replace")


ODD_PROMPTS = st.binary(max_size=5) | st.builds(
    lambda before, text, cut: before + text.encode("utf-8", "ignore")[:-cut],
    st.sampled_from([b"", b"x", b"\xf0"]),
    st.text(st.characters(min_codepoint=0x80), min_size=1, max_size=1),
    st.integers(1, 3),
)


@settings(max_examples=25)
@given(
    st.lists(ODD_PROMPTS, min_size=1, max_size=4),
    st.integers(0, 24),
    st.sampled_from([0, 3]),
    st.sampled_from([(), ("e",), ("é", "\n")]),
    st.integers(0, 2**32),
)
def test_valid_text_is_whole_characters_after_any_bytes(
    form: str, prompts: list[bytes], most: int, drafts: int, stop: tuple[str, ...], seed: int
) -> None:
    """What a prompt has begun is finished where it fits, and else left as it is."""
    engine = Engine(random_blt(), max_batch=3, draft_bytes=drafts)
    how = Sampling(most, temperature=2.0, seed=seed, stop=stop, valid_utf8=True)  # type: ignore[arg-type]
    prompts += prompts[:1]  # equal ones are read once
    handles = [engine.submit(prompt, how) for prompt in prompts]
    engine.run()
    for prompt, handle in zip(prompts, handles, strict=True):
        data, begun = handle.result().data, blt.vocab.unfinished(prompt)
        fits = 0 < len(state_of(prompt)) <= most
        expected = (begun + data if fits and data else data).decode()
        assert "".join(handle.text()) == handle.result().text == expected
        assert len(data) <= most


def test_a_cancelled_text_ends_with_a_whole_character(form: str) -> None:
    engine = Engine(random_blt(), max_batch=1)
    how = {"temperature": 2.0, "ignore_eos": True, "valid_utf8": True}
    unfinished = 0
    for size in range(1, 12):
        handle = engine.submit("x", max_bytes=99, **how)
        while handle.available < size:
            engine.step()
        handle.cancel()
        result = handle.result()
        assert result.finish_reason == "cancelled"
        assert "".join(handle.text()) == result.text == blt.vocab.whole(result.data).decode()
        unfinished += result.data != blt.vocab.whole(result.data)
    assert unfinished


def test_a_special_id_ends_a_character() -> None:
    engine = Engine(random_blt(), max_batch=1)
    for ids, begun in (
        ([1, 5, 0xF0 + 4, 0x9F + 4], b"\xf0\x9f"),
        ([1, 0xF0 + 4, 2, 0x9F + 4], b""),
        ([1, 0xF0 + 4, 2], b""),
        ([1, 2, 0xC3 + 4], b"\xc3"),
    ):
        handle = engine.submit(torch.tensor(ids), max_bytes=9, valid_utf8=True)
        assert handle.begun == begun
        (begun + handle.result().data).decode()
    state = engine.read(b"caf\xc3")
    assert engine.submit("", state=state, valid_utf8=True).begun == b"\xc3"
    assert engine.submit("s", state=state, valid_utf8=True).begun == b""


def test_stop_strings_are_cut_and_never_shown() -> None:
    lm = random_blt()
    whole = lm.generate("q", max_bytes=120, temperature=1.0, ignore_eos=True).data
    stop = whole[50:53]
    first = whole.index(stop)
    for draft_bytes in (0, 5):
        engine = Engine(lm, max_batch=1, draft_bytes=0)
        handle = engine.submit(
            "q", max_bytes=120, temperature=1.0, ignore_eos=True, stop=(stop, b"not there")
        )
        seen = b""
        for piece in handle:
            seen += piece
            assert whole[:first].startswith(seen)
        assert handle.result().finish_reason == "stop"
        assert handle.result().data == seen == whole[:first]
        assert len(handle.result().logprobs) == first
        greedy = lm.generate("q", max_bytes=99, draft_bytes=draft_bytes, stop=whole[50:53])
        assert whole[50:53] not in greedy.data


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


@settings(max_examples=10)
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


@given(st.lists(st.binary(min_size=1, max_size=4), min_size=1, max_size=3), st.binary(max_size=9))
def test_of_what_may_become_a_stop_string_nothing_is_shown(
    stops: list[bytes], before: bytes
) -> None:
    """After each byte: all that no stop string can begin with is shown, and not one byte more."""
    stops = [bytes(byte % 3 for byte in stop) for stop in stops]
    data = bytes(byte % 3 for byte in before) + stops[0]
    request = Request(b"", Sampling(max_bytes=99, stop=tuple(stops)))
    for byte in data:
        request.push(byte + blt.vocab.OFFSET, 0.0, True, None, [])
        written = bytes(request.data)
        if request.finish_reason == "stop":
            break
        begun = [
            n
            for n in range(1, len(written) + 1)
            if any(len(stop) > n and stop.startswith(written[-n:]) for stop in stops)
        ]
        assert request.visible == len(written) - max(begun, default=0)
    assert request.finish_reason == "stop"
