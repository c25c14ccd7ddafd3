"""Rows of task files end where their lines do, whatever characters stand in them."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from blt.evals.cute import read_task
from blt.evals.lines import lines_of
from blt.evals.phonemes import read_words
from blt.evals.typos import listed

ODD = "\u2028\u2029\x85\x1c\x1d\x1e\x0b\x0c"  # ends of lines to str.splitlines
fields = st.text(st.sampled_from("ab é" + ODD), min_size=1)


@given(st.lists(fields), st.sampled_from(["\n", "\r\n"]), st.booleans())
def test_lines_are_those_that_were_written(
    tmp_path_factory: pytest.TempPathFactory, lines: list[str], end: str, ended: bool
) -> None:
    path = tmp_path_factory.getbasetemp() / "lines.txt"
    text = end.join(lines) + end * (ended and bool(lines))
    path.write_bytes(text.encode())
    assert lines_of(path) == lines


@pytest.mark.parametrize("odd", ODD)
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_a_field_with_any_character_stays_one_field(tmp_path: Path, odd: str, end: str) -> None:
    path = tmp_path / "rows"
    path.write_bytes(f"input1\tlabel{end}a{odd}b\tc{odd}d{end}".encode())
    (item,) = read_task(path)
    assert (item.inputs, item.label) == ((f"a{odd}b",), f"c{odd}d")
    path.write_bytes(f"a{odd}b\tx y{end}c\tz{end}".encode())
    assert read_words(path) == [(f"a{odd}b", "x y"), ("c", "z")]
    path.write_bytes(f"teh->the,{odd}because{end}wrod->word{end}".encode())
    assert [pairs for _, pairs in listed(path)] == [[("the", "teh")], [("word", "wrod")]]
