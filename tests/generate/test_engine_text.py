"""What a reader is shown: whole characters, and nothing of a stop string."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import blt
from blt.generate import Engine, Sampling
from blt.generate.request import Request
from blt.generate.utf8 import state_of
from shapes import random_blt

pytestmark = pytest.mark.usefixtures("form")

ODD_PROMPTS = st.binary(max_size=5) | st.builds(
    lambda before, text, cut: before + text.encode("utf-8", "ignore")[:-cut],
    st.sampled_from([b"", b"x", b"\xf0"]),
    st.text(st.characters(min_codepoint=0x80), min_size=1, max_size=1),
    st.integers(1, 3),
)


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
