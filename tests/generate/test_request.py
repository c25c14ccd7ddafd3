"""Where a text ends, and how much of it may be shown, id by id."""

from __future__ import annotations

import pytest

from blt import vocab
from blt.generate.request import Request
from blt.generate.sampling import Sampling


def written(data: bytes, *, max_bytes: int = 100, stop: tuple[bytes, ...] = ()) -> Request:
    request = Request(b"", Sampling(max_bytes=max_bytes, stop=stop))
    for byte in data:
        assert request.finish_reason is None
        request.push(byte + vocab.OFFSET, 0.0, True, None, [])
    return request


@pytest.mark.parametrize(
    ("data", "stops", "shown"),
    [
        (b"so a", (b"abcd",), b"so "),
        (b"so ab", (b"abcd",), b"so "),
        (b"so abc", (b"abcd",), b"so "),  # all but the last byte of it
        (b"so abcx", (b"abcd",), b"so abcx"),
        (b"so aba", (b"abcd",), b"so ab"),
        (b"so aab", (b"aabb", b"b!"), b"so "),  # the longest beginning counts
        (b"so a", (b"a!", b"so another"), b""),
        (b"abc", (b"abcd",), b""),  # from the first byte on
        (b"so abc", (), b"so abc"),
    ],
)
def test_every_byte_that_a_stop_string_may_begin_with_is_held_back(
    data: bytes, stops: tuple[bytes, ...], shown: bytes
) -> None:
    request = written(data, stop=stops)
    assert bytes(request.data[: request.visible]) == shown
    assert request.finish_reason is None


def test_a_stop_string_ends_a_text_right_before_it() -> None:
    request = written(b"so abcd", stop=(b"abcd",))
    assert request.finish_reason == "stop"
    assert bytes(request.data) == b"so "
    assert request.visible == len(request.logprobs) == len(request.starts) == 3


@pytest.mark.parametrize("stops", [(b"\n", b"\r\n"), (b"\r\n", b"\n")])
def test_of_stop_strings_that_end_together_the_longest_is_left_out(
    stops: tuple[bytes, ...],
) -> None:
    request = written(b"line\r\n", stop=stops)
    assert (request.finish_reason, bytes(request.data)) == ("stop", b"line")


@pytest.mark.parametrize("max_bytes", [1, 2, 5])
def test_a_text_has_max_bytes_and_not_one_more(max_bytes: int) -> None:
    assert written(b"x" * (max_bytes - 1), max_bytes=max_bytes).finish_reason is None
    assert written(b"x" * max_bytes, max_bytes=max_bytes).finish_reason == "length"


def test_what_was_held_back_is_shown_where_a_text_ends_without_the_stop_string() -> None:
    request = written(b"so abc", max_bytes=6, stop=(b"abcd",))
    assert request.finish_reason == "length"
    assert request.visible == 6


def test_eos_ends_a_text_and_is_no_byte_of_it() -> None:
    request = written(b"so ab", stop=(b"abcd",))
    request.push(vocab.EOS, 0.0, True, None, [])
    assert request.finish_reason == "eos"
    assert bytes(request.data[: request.visible]) == b"so ab"
