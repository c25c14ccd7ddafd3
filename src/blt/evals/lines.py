"""Lines of the text files that tasks come in."""

from __future__ import annotations

from pathlib import Path

from blt.data.compressed import text_of


def lines_of(path: Path) -> list[str]:
    r"""Lines of a file, packed or not; only ``\n`` and ``\r\n`` end one, not what Unicode calls a
    line's end, such as U+2028 and U+0085, which a word or sentence may have.

    Raises:
        UserError: unreadable, or not UTF-8; names the file.
    """
    lines = [line.removesuffix("\r") for line in text_of(path).split("\n")]
    return lines if lines[-1] else lines[:-1]
