"""Lines of results: a JSON object each, added as they come and never in part."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from filelock import FileLock

from blt.files import durable
from blt.files.strict_json import parse_object

Line = dict[str, Any]


def read_lines(path: Path) -> list[Line]:
    """The lines of a file; none where there is no file.

    Raises:
        UserError: a line that is none; names the file and the line.
    """
    lines = path.read_bytes().splitlines() if path.is_file() else []
    return [
        parse_object(line, f"{path}, line {number}", "delete the line, and it is made again")
        for number, line in enumerate(lines, 1)
    ]


def append(path: Path, line: Line) -> None:
    """Add a line, its numbers rounded to four digits behind the point, whole or not at all; other
    processes may add theirs."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(path.with_name(f".{path.name}.lock.tmp")):  # it stays; git passes over .tmp
        before = path.read_text(encoding="utf-8") if path.is_file() else ""
        durable.write_text(path, before + json.dumps(rounded(line), ensure_ascii=False) + "\n")


def rounded(line: Line) -> Line:
    return {k: round(v, 4) if isinstance(v, float) else v for k, v in line.items()}
