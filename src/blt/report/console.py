"""The terminal, to which nothing from outside can send commands."""

from __future__ import annotations

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
