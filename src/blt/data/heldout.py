"""What is trained on and what is held out."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from blt.errors import UserError

MOST_HELD_OUT = 4  # times the share asked for; and a fourth of it at least
LONG = 4096  # bytes; the end of a shorter document is what matters in it, such as an answer
HANDFUL = 20  # long documents: of so many, the end of each tells more than one of them whole
FEW_BYTES = 4096  # of held-out text: less says next to nothing about a model


@dataclass(frozen=True)
class Split:
    """Documents of both sides.

    Attributes:
        cut: which of ``train`` have no end.
        divided: of how many of them the end is in ``heldout``.
    """

    train: list[bytes]
    heldout: list[bytes]
    cut: frozenset[int] = frozenset()
    divided: int = 0

    def remarks(self, name: str) -> list[str]:
        """What a user should know of it, in sentences."""
        return split_remarks(name, self.divided, sum(map(len, self.heldout)))


def split_remarks(name: str, cut: int, held: int) -> list[str]:
    """What a user should know of a split of which ``held`` bytes are held out."""
    found = []
    if cut:
        documents = "1 document" if cut == 1 else f"each of {cut:,} documents"
        found.append(
            f"{name}: the end of {documents} is held out, instead of whole ones; training sees no "
            "end of text there"
        )
    if 0 < held < FEW_BYTES:
        found.append(
            f"{name}: only {held:,} bytes are held out, too few to judge a model by; hold out "
            "more, or use more text"
        )
    return found


def content_hash(document: bytes) -> float:
    """A number in 0..1 that depends on the content alone."""
    return int.from_bytes(hashlib.sha256(document).digest()[:8], "big") / 2**64


@dataclass(frozen=True)
class Division:
    """Which documents are held out.

    Attributes:
        held: hashes of those held out whole.
        cut_from: bytes; of others as long as this the end is held out. None: of none.
    """

    held: frozenset[float]
    cut_from: int | None = None

    def at(self, document: bytes, value: float, heldout: float) -> int:
        """Offset where the held-out part of a document with the hash ``value`` begins."""
        if value in self.held:
            return 0
        if self.cut_from is not None and len(document) >= self.cut_from:
            return end_held_out(document, heldout)
        return len(document)


def divide(
    sizes: Mapping[float, int], total: int, shortest: int, longest: int, heldout: float
) -> Division:
    """Decide which documents to hold out; see :func:`split`.

    Args:
        sizes: bytes of each content, copies together, by its hash; the smallest hashes will do.
        total: bytes of all documents.
        shortest, longest: bytes of such a document.
        heldout: share, between 0 and 1.

    Returns:
        a division that may hold out nothing, where there is one short content only.
    """
    wanted, most = heldout * total, MOST_HELD_OUT * heldout * total
    below = frozenset(value for value in sizes if value < heldout)
    if below and sum(sizes[value] for value in below) <= min(most, total - 1):
        return Division(below)
    if len(sizes) <= HANDFUL and shortest >= LONG:
        return Division(frozenset(), LONG)
    held, chosen = 0, set[float]()
    for value in sorted(sizes):
        if held < wanted and held + sizes[value] <= min(most, total - 1):
            chosen.add(value)
            held += sizes[value]
    if held < wanted / MOST_HELD_OUT and longest >= LONG:
        return Division(frozenset(chosen), LONG)
    if not chosen and len(sizes) > 1:
        chosen = {min(sizes, key=lambda value: (sizes[value], value))}
    return Division(frozenset(chosen))


def split(
    documents: Sequence[bytes], heldout: float = 0.05, endless: Collection[int] = ()
) -> Split:
    """Hold out about ``heldout`` of the documents, by a hash of their content.

    Each document's side depends on its content alone, so adding, removing or reordering others
    changes nothing and copies stay together. Where a side would be empty, or four times too many
    bytes held out, documents are held out whole in the order of their hashes until it is the share.
    Only of a single document, of a handful of long ones, or where such ones leave too few short
    ones, the ends are held out: those of the long ones, or of copies of one short text.

    Args:
        documents: none empty.
        heldout: share, between 0 and 1.
        endless: which of the documents were cut before, and have no end.

    Raises:
        UserError: nothing to divide.
    """
    hashes, sizes = [content_hash(document) for document in documents], Counter[float]()
    for document, value in zip(documents, hashes, strict=True):
        sizes[value] += len(document)
    total, lengths = sum(sizes.values()), [len(document) for document in documents]
    division = divide(sizes, total, min(lengths, default=0), max(lengths, default=0), heldout)
    if not division.held and division.cut_from is None:
        division = Division(frozenset(), 1)
    train, ends, cut, divided = list[bytes](), list[bytes](), set[int](), 0
    for index, (document, value) in enumerate(zip(documents, hashes, strict=True)):
        at = division.at(document, value, heldout)
        divided += 0 < at < len(document)
        if 0 < at < len(document) or (at and index in endless):
            cut.add(len(train))
        train.extend([document[:at]] * (at > 0))
        ends.extend([document[at:]] * (at < len(document)))
    if not ends:
        raise UserError(f"{total} bytes of text are too few to hold some out; use more")
    return Split(train, ends, frozenset(cut), divided)


def end_held_out(document: bytes, heldout: float) -> int:
    """Offset where the held-out end begins: never 0, and not inside a UTF-8 character."""
    wanted = round(len(document) * heldout)
    at = len(document) - max(1, min(wanted, len(document) - 1))
    for back in range(4):  # a character has at most 3 continuation bytes
        if at - back > 0 and document[at - back] & 0xC0 != 0x80:
            return at - back
    return at if at > 0 else len(document)
