"""Bytes go to ids and back whole; ids out of range are named."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from blt import vocab


@given(st.binary(max_size=300), st.booleans(), st.booleans())
def test_every_byte_string_survives_the_round_trip(data: bytes, bos: bool, eos: bool) -> None:
    ids = vocab.encode(data, bos=bos, eos=eos)
    assert len(ids) == len(data) + bos + eos
    assert vocab.decode(ids) == data
    assert vocab.check_ids(ids) is ids


@given(st.text(max_size=100))
def test_text_is_its_utf8_bytes(text: str) -> None:
    try:
        data = text.encode()
    except UnicodeEncodeError:
        return  # a lone surrogate that no byte stands behind
    assert vocab.decode(vocab.encode(text)) == data


@given(st.text(max_size=60))
def test_a_stream_shows_whole_characters_only(text: str) -> None:
    data = text.encode("utf-8", "replace")
    stream = vocab.Utf8Stream()
    pieces = [stream.push(byte + vocab.OFFSET) for byte in data]
    assert "".join(pieces) + stream.finish() == data.decode()
    assert "�" not in "".join(pieces) or "�" in text


@given(st.text(min_size=1), st.integers(1, 3))
def test_a_stream_goes_on_with_a_character_that_was_begun(text: str, size: int) -> None:
    data = text.encode("utf-8", "ignore")
    begun = vocab.unfinished(data[:size])
    stream = vocab.Utf8Stream(begun)
    rest = data[size:] if begun else data
    found = "".join(stream.push(byte + vocab.OFFSET) for byte in rest) + stream.finish()
    assert found == (begun + rest if rest else b"").decode()
    assert vocab.Utf8Stream(begun).finish() == ""


@given(st.sampled_from([b"\xc3", b"\xe0", b"\xed", b"\xf0\x9f", b"\xf4"]), st.binary(max_size=4))
def test_a_character_that_nothing_goes_on_with_is_left_out(begun: bytes, data: bytes) -> None:
    goes_on = vocab.unfinished(begun + data[:1]) == begun + data[:1] or (
        len((begun + data[:1]).decode("utf-8", "ignore")) == 1 and data[:1] >= b"\x80"
    )
    expected = begun + data if data and goes_on else data
    stream = vocab.Utf8Stream(begun)
    assert stream.write(data) + stream.finish() == expected.decode("utf-8", "replace")


@given(st.binary(max_size=60))
def test_a_stream_takes_invalid_utf8(data: bytes) -> None:
    stream = vocab.Utf8Stream()
    pieces = [stream.push(byte + vocab.OFFSET) for byte in data]
    assert "".join(pieces) + stream.finish() == data.decode("utf-8", "replace")


@pytest.mark.parametrize(
    ("ids", "named"),
    [
        (torch.tensor([1, 5, 260]), "id 260 at position 2"),
        (torch.tensor([1, -1]), "id -1 at position 1"),
        (torch.tensor([[1, 5]]), r"\(1, 2\)"),
        (torch.tensor([1.0]), "float32"),
        ([1, 2], "list"),
    ],
)
def test_bad_ids_are_named(ids: object, named: str) -> None:
    with pytest.raises(ValueError, match=named):
        vocab.check_ids(ids)  # type: ignore[arg-type]
