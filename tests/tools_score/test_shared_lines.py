"""Lines of results are whole, and no process takes away those of another."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tools.lines import append, read_lines


def test_lines_that_several_add_at_once_are_all_there(tmp_path: Path) -> None:
    out = tmp_path / "new" / "lines.jsonl"
    lines = [{"number": number, "of": "\u2028"} for number in range(40)]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda line: append(out, line), lines))
    assert sorted(read_lines(out), key=lambda line: line["number"]) == lines
