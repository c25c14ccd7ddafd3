"""A loop is what its definition says, and every continuation is counted once."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from blt import vocab
from tools import loops
from tools.heldout import texts
from tools.loops import SPAN, TIMES, UNIT, loop, wilson

units = st.binary(min_size=1, max_size=UNIT)
few_letters = st.lists(st.sampled_from(b"ab"), max_size=120).map(bytes)


def _slow(data: bytes) -> bytes | None:
    for size in range(1, UNIT + 1):
        length = max(SPAN, TIMES * size)
        unit = data[len(data) - length :][:size]
        if len(data) >= length and data.endswith((unit * length)[:length]):
            return unit
    return None


@pytest.mark.parametrize(
    ("data", "unit"),
    [
        (b"once" + b" and again" * 7, b"again and "),
        (b" " * 64, b" "),
        (b" " * 63, None),
        (b"x" + b"he said. " * 8 + b"!", None),
        ("".join(f"line {n}\n" for n in range(30)).encode(), None),
        (bytes(range(32)) * 3, bytes(range(32))),
        (bytes(range(33)) * 4, None),
        (bytes(range(30)) * 2 + bytes(range(29)), None),
        (b"", None),
    ],
)
def test_made_up_ends_are_told_apart(data: bytes, unit: bytes | None) -> None:
    found = loop(data)
    assert (found is None) == (unit is None)
    assert unit is None or sorted(found or b"") == sorted(unit)


@given(st.binary(max_size=80), units, st.integers(0, UNIT))
def test_a_unit_repeated_often_enough_is_a_loop_wherever_it_is_cut_off(
    before: bytes, unit: bytes, more: int
) -> None:
    size = max(SPAN, TIMES * len(unit)) + more
    found = loop(before + (unit * size)[:size])
    assert found is not None
    assert len(found) <= len(unit)


@given(few_letters, units, st.integers(0, 130))
def test_loops_are_those_of_the_definition(before: bytes, unit: bytes, size: int) -> None:
    data = before + (unit * size)[:size]
    assert loop(data) == _slow(data)


@given(units, st.binary(min_size=1, max_size=1))
def test_a_last_byte_that_is_new_breaks_a_loop(unit: bytes, last: bytes) -> None:
    if last not in unit:
        assert loop(unit * SPAN + last) is None


@pytest.mark.parametrize(
    ("count", "total", "low", "high"),
    [
        (0, 50, 0.0, 0.0713),
        (25, 50, 0.3664, 0.6336),
        (10, 10, 0.7225, 1.0),
        (1, 10, 0.0179, 0.4042),
    ],
)
def test_intervals_are_wilsons(count: int, total: int, low: float, high: float) -> None:
    assert wilson(count, total) == pytest.approx((low, high), abs=5e-5)


def test_prompts_are_whole_characters_and_as_many_of_each_kind(corpora: Path) -> None:
    kinds = list(texts(corpora, loops.KINDS))
    assert len(kinds) == len(loops.KINDS)
    prompts = loops.prompts_of(kinds, 25)
    assert len(prompts) == 25
    assert all(0 < len(prompt) <= loops.PROMPT_BYTES for prompt in prompts)
    assert all(vocab.whole(prompt).decode().encode() == prompt for prompt in prompts)
    assert loops.prompts_of(kinds, 25) == prompts
    books = [prompt for prompt in prompts if b"night" in prompt]
    assert len(books) in (2, 3)


def test_a_line_counts_loops_of_a_decoding_and_is_not_made_again(
    corpora: Path,
    folders: dict[str, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    decodings = {name: loops.DECODINGS[name] for name in ("greedy", "temperature 1")}
    monkeypatch.setattr(loops, "DECODINGS", decodings)
    out = tmp_path / "loops.jsonl"
    asked = [str(folders["lookup"]), "--data", str(corpora), "--out", str(out), "--prompts", "3"]
    loops.main(asked)
    lines = [json.loads(line) for line in out.read_text().splitlines()]
    assert [line["decoding"] for line in lines] == list(decodings)
    assert [line["options"] for line in lines] == [{}, {"temperature": 1.0}]
    for line in lines:
        assert line["model"] == "lookup"
        assert (line["prompts"], line["bytes"], line["seed"]) == (3, 200, 0)
        assert line["low"] <= line["share"] <= line["high"]
    loops.main(asked)
    assert len(out.read_text().splitlines()) == 2
    capsys.readouterr()
    loops.main(["--table", str(out)])
    shown = capsys.readouterr().out.splitlines()
    assert shown[0] == "| decoding | lookup, loops |"
    assert len(shown) == 4
