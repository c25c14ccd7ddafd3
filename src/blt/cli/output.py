"""Lines that the command prints, with nothing in them that a terminal would obey."""

from __future__ import annotations

import io
import logging
import sys
from typing import Any

from blt.texts.printable import printable


def say(line: object, **where: Any) -> None:
    """Print a line in which there may be text from outside."""
    print(printable(str(line)), **where)


def stream(text: str) -> None:
    """Write a part of what a model writes, at once; what a terminal would obey is shown."""
    if sys.stdout.isatty():
        text = printable(text)
    # A terminal that cannot show a character shows a question mark.
    encoding = sys.stdout.encoding or "utf-8"
    sys.stdout.write(text.encode(encoding, "replace").decode(encoding))
    sys.stdout.flush()


def print_anything() -> None:
    """Show what a terminal has no characters for, or must not be given, in a program's output."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")
    if logging.lastResort is not None:
        logging.lastResort.setFormatter(_Printable())


class _Printable(logging.Formatter):
    """Formats warnings, in which there are names of files."""

    def format(self, record: logging.LogRecord) -> str:
        return printable(super().format(record))
