"""What is trained on and what is held out."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

from blt.errors import UserError

MOST_HELD_OUT = 4  # times the share asked for


@dataclass(frozen=True)
class Split:
    train: list[bytes]
    heldout: list[bytes]


def content_hash(document: bytes) -> float:
    """A number in 0..1 that depends on the content alone."""
    return int.from_bytes(hashlib.sha256(document).digest()[:8], "big") / 2**64


def split(documents: Sequence[bytes], heldout: float = 0.05) -> Split:
    """Hold out about ``heldout`` of the documents, by a hash of their content.

    Each document's side depends on its content alone, so adding, removing or reordering others
    changes nothing and copies stay together. A few long documents cannot be divided so: where a
    side would be empty, or four times too many bytes held out, each document is cut instead, and
    its end is held out.

    Args:
        documents: none empty.
        heldout: share, between 0 and 1.

    Raises:
        UserError: nothing to divide.
    """
    parts = Split([], [])
    for document in documents:
        (parts.heldout if content_hash(document) < heldout else parts.train).append(document)
    total, held = sum(map(len, documents)), sum(map(len, parts.heldout))
    if parts.train and 0 < held <= MOST_HELD_OUT * heldout * total:
        return parts
    cuts = [(document, end_held_out(document, heldout)) for document in documents]
    ends = [document[at:] for document, at in cuts if at < len(document)]
    if not ends:
        raise UserError(f"{total} bytes of text are too few to hold some out; use more")
    return Split([document[:at] for document, at in cuts], ends)


def end_held_out(document: bytes, heldout: float) -> int:
    """Offset where the held-out end begins: never 0, and not inside a UTF-8 character."""
    wanted = round(len(document) * heldout)
    at = len(document) - max(1, min(wanted, len(document) - 1))
    for back in range(4):  # a character has at most 3 continuation bytes
        if at - back > 0 and document[at - back] & 0xC0 != 0x80:
            return at - back
    return at if at > 0 else len(document)
