"""Which documents of prepared text are held out, decided while they stream by."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from blt.data.heldout import Division, divide, end_held_out

LONG = 2**20  # bytes; of a document as long as this the end is held out, not all or nothing
KEPT = 64  # hashes of a source file


def by_hash(document: bytes, value: float, heldout: float) -> int:
    """Offset where the held-out part begins, by the hash ``value`` of the document alone."""
    if len(document) >= LONG and heldout:
        return end_held_out(document, heldout)
    return 0 if value < heldout else len(document)


@dataclass
class Census:
    """What is known of the documents of a source file.

    Attributes:
        total: bytes of all of them.
        held: bytes that hashes alone hold out.
        shortest, longest: bytes of such a document.
        smallest: hashes, and the bytes of all documents that have them; the smallest ones.
    """

    total: int = 0
    held: int = 0
    shortest: int = 0
    longest: int = 0
    smallest: list[tuple[float, int]] = field(default_factory=list)

    def add(self, document: bytes, value: float, heldout: float) -> None:
        """Count a document."""
        size = len(document)
        self.held += size - by_hash(document, value, heldout)
        self.shortest = min(size, self.shortest or size)
        self.longest = max(size, self.longest)
        self.total += size
        if len(self.smallest) < KEPT or value <= self.smallest[-1][0]:
            sizes = Counter(dict(self.smallest))
            sizes[value] += size
            self.smallest = sorted(sizes.items())[:KEPT]


def division_of(found: Sequence[Census], heldout: float) -> Division | None:
    """What to hold out instead, where hashes alone hold out nothing or everything.

    Returns:
        None: hashes alone do, or there is nothing to divide.
    """
    total, held = (sum(getattr(census, name) for census in found) for name in ("total", "held"))
    if not heldout or 0 < held < total:
        return None
    # Above the last hash of a file that has more, only some of the bytes are known.
    full = [census.smallest[-1][0] for census in found if len(census.smallest) == KEPT]
    known = Counter[float]()
    for value, size in (pair for census in found for pair in census.smallest):
        if value <= min(full, default=1.0):
            known[value] += size
    filled = [census for census in found if census.total]
    shortest = min((census.shortest for census in filled), default=0)
    longest = max((census.longest for census in filled), default=0)
    division = divide(known, total, shortest, longest, heldout)
    return division if division.held or division.cut_from is not None else None


def to_json(division: Division | None) -> str:
    """As it is kept with the shards of a source file; "" for None."""
    if division is None:
        return ""
    return json.dumps({"held": sorted(division.held), "cut_from": division.cut_from})


def from_json(text: str) -> Division | None:
    if not text:
        return None
    found = json.loads(text)
    return Division(frozenset(found["held"]), found["cut_from"])
