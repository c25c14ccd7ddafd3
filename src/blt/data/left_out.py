"""What was not read, or not as its name says: counted, and the first of it named."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from blt.errors import UserError

MAX_BROKEN_LINES = 100  # more than this, and the file is not what its name says
MOST_NAMED = 1000  # broken lines by file, number and reason; all are counted
KEPT, SHOWN = 10, 3  # names of each kind: in facts, in messages


class Tally:
    """Files of each kind: how many, and the first of them by name."""

    def __init__(self) -> None:
        self.counts: dict[str, int] = {}
        self.named: dict[str, list[str]] = {}

    def add(self, kind: str, name: object) -> None:
        """Take note of one; ``kind`` is a plural, such as "binary files"."""
        self._merge(kind, 1, [str(name)])

    def add_facts(self, facts: Mapping[str, Any]) -> None:
        """Take note of what another one has counted."""
        for kind, found in facts.items():
            self._merge(kind, found["count"], found["first"])

    def facts(self) -> dict[str, Any]:
        """Count and first names of each kind, for JSON."""
        return {
            kind: {"count": count, "first": self.named[kind]} for kind, count in self.counts.items()
        }

    def _merge(self, kind: str, count: int, names: list[str]) -> None:
        self.counts[kind] = self.counts.get(kind, 0) + count
        kept = self.named.setdefault(kind, [])
        kept.extend(names[: KEPT - len(kept)])

    def __bool__(self) -> bool:
        return bool(self.counts)

    def __str__(self) -> str:
        parts = []
        for kind, count in self.counts.items():
            names = self.named[kind][:SHOWN]
            parts.append(f"{kind}: {count:,} ({', '.join(names)}{', …' * (count > len(names))})")
        return "; ".join(parts)


class Broken:
    """Lines, rows and files that hold no document.

    Args:
        limit: so many lines of one file are left out; one more ends the reading.

    Attributes:
        count: lines and rows.
        named: each of them, up to a thousand, as "file:line: why".
        left_out: files and folders that were not read.
        as_text: files that were read as one text, which is perhaps not what they are.
    """

    def __init__(self, limit: int = MAX_BROKEN_LINES) -> None:
        self.limit, self.count = limit, 0
        self.named: list[str] = []
        self.left_out, self.as_text = Tally(), Tally()
        self._path, self._here = "", 0

    def add(self, path: str, line: int, why: str, example: str = '{"text": "..."}') -> None:
        """Take note of a line.

        Args:
            example: a line as it should be.

        Raises:
            UserError: too many in this file.
        """
        self._here = self._here + 1 if path == self._path else 1
        self._path = path
        self.count += 1
        message = f"{path}:{line}: {why}"
        if len(self.named) < MOST_NAMED:
            self.named.append(message)
        if self._here > self.limit:
            raise UserError(
                f"{message}; that is more than {self.limit} broken lines: every line must be a "
                f"JSON object like {example}, every row must have these columns; more may be "
                "broken with data.max_broken, or --max-broken of blt prepare"
            )

    def remarks(self) -> list[str]:
        """Sentences for the user."""
        found = {"left out": self.left_out, "read as one text": self.as_text}
        lines = []
        if self.count:
            lines = [f"left out: {self.count:,} lines or rows, the first is {self.named[0]}"]
        return lines + [f"{what}: {tally}" for what, tally in found.items() if tally]
