"""The terminal, to which nothing from outside can send commands."""

from __future__ import annotations

import io
import logging
import sys
from collections.abc import Iterable
from typing import Any

from rich import console
from rich.segment import Segment
from rich.status import Status
from rich.text import Text

from blt.texts.printable import printable


class Console(console.Console):
    """Shows control characters in what is printed instead of obeying them.

    Brackets in text are no markup: styles come from ``Text`` and columns.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(**{"markup": False, **options})

    def render(self, *args: Any, **options: Any) -> Iterable[Segment]:
        for segment in super().render(*args, **options):
            safe = segment.text if segment.control else printable(segment.text)
            yield segment if safe == segment.text else Segment(safe, segment.style)

    def render_str(self, text: str, **options: Any) -> Text:
        return super().render_str(printable(text), **options)  # before it is measured

    def status(self, status: Any, **options: Any) -> Status:
        return super().status(Text(status) if isinstance(status, str) else status, **options)


def say(line: object, **where: Any) -> None:
    """Print a line in which there may be text from outside."""
    print(printable(str(line)), **where)


def print_anything() -> None:
    """Show what a terminal has no characters for, or must not be given, in a program's output."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")
    if logging.lastResort is not None:
        logging.lastResort.setFormatter(_Printable())


class _Printable(logging.Formatter):
    """Of warnings, in which there are names of files."""

    def format(self, record: logging.LogRecord) -> str:
        return printable(super().format(record))
