"""Pieces of documents that can be read in any order: from memory here, from disk in ``shards``."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import numpy as np

from blt import vocab
from blt.texts.marked import Marked


@dataclass(frozen=True)
class Piece:
    """Some bytes of a document.

    Attributes:
        following: id that comes after them: of the next byte, EOS, or PAD where the document was
            cut and its rest is held out.
        entropies: [bytes + 1] nats, of the prediction of each byte given the document before it,
            and of the one after them; None: not known.
        asked: [bytes] bool, which of them are to be predicted; None: all. Others are only read:
            they are not learned, or a noise has changed them.
        specials: (place, id) of special ids inside, which have the places of bytes.
    """

    data: bytes
    following: int
    entropies: np.ndarray | None = None
    asked: np.ndarray | None = None
    specials: tuple[tuple[int, int], ...] = ()

    def part(self, start: int, end: int) -> Piece:
        """Bytes start..end of a piece without entropies."""
        following = self.following
        if end < len(self.data):
            wanted = self.asked is None or self.asked[end]
            following = self._id_at(end) if wanted else vocab.PAD
        within = ((at - start, special) for at, special in self.specials if start <= at < end)
        asked = None if self.asked is None else self.asked[start:end]
        return Piece(self.data[start:end], following, None, asked, tuple(within))

    def _id_at(self, place: int) -> int:
        return dict(self.specials).get(place, self.data[place] + vocab.OFFSET)


class Segments(Protocol):
    """Documents in segments, each at most so long, in the order of the text."""

    @property
    def num_bytes(self) -> int:
        """Bytes of all documents together."""
        ...

    @property
    def fingerprint(self) -> str:
        """A hash of the content and its order, to which alone a position in a stream belongs."""
        ...

    def __len__(self) -> int: ...

    def in_epoch(self, *key: int) -> Segments:
        """The segments as one epoch of one stream reads them; the same numbers, the same text."""
        ...

    def length(self, index: int) -> int:
        """Bytes of a segment; at least 1."""
        ...

    def ends(self, index: int) -> bool:
        """Is there an end of a document to learn after it? One that was cut has none."""
        ...

    def stays_whole(self, index: int) -> bool:
        """Must no batch end within it? What is learned of it needs what is read before."""
        ...

    def read(self, index: int, start: int, end: int) -> Piece:
        """Bytes start..end of a segment."""
        ...


class MemorySegments:
    """Segments of documents in memory.

    Args:
        documents: none empty.
        context_bytes: of the longest segment.
        cut: which of the documents have no end: their rest is held out.

    Attributes:
        left_out: segments of marked documents that have nothing to learn, and are none of these.
    """

    def __init__(
        self, documents: Sequence[bytes], context_bytes: int, cut: Collection[int] = ()
    ) -> None:
        if not documents or not all(documents):
            raise ValueError("there must be documents, and none of them empty")
        self.documents, self.context_bytes, self.cut = documents, context_bytes, cut
        self._where: list[tuple[int, int]] = []  # (document, first byte)
        self.left_out = 0
        for index, document in enumerate(documents):
            starts: Sequence[int] = range(0, len(document), context_bytes)
            if isinstance(document, Marked):
                every, starts = len(starts), list(self._learned(index, document, starts))
                self.left_out += every - len(starts)
            self._where.extend((index, start) for start in starts)

    def _learned(self, index: int, document: Marked, starts: Iterable[int]) -> Iterator[int]:
        """Where segments begin that have something to learn, what follows them included."""
        for start in starts:
            end = start + self.context_bytes
            if document.learns(start, end, ends=index not in self.cut):
                yield start

    @cached_property
    def num_bytes(self) -> int:
        """Of the segments alone: of conversations there may be less than is in the documents."""
        return sum(map(self.length, range(len(self))))

    @cached_property
    def fingerprint(self) -> str:
        digest = hashlib.sha256()
        for document in self.documents:
            digest.update(hashlib.sha256(document).digest())
            if isinstance(document, Marked):
                marks = (document.spans, document.specials, document.learns_end)
                digest.update(repr(marks).encode())
        return digest.hexdigest()

    def __len__(self) -> int:
        return len(self._where)

    def in_epoch(self, *_: int) -> MemorySegments:
        return self

    def length(self, index: int) -> int:
        document, first = self._where[index]
        return min(self.context_bytes, len(self.documents[document]) - first)

    def ends(self, index: int) -> bool:
        number, first = self._where[index]
        document = self.documents[number]
        learned = not isinstance(document, Marked) or document.learns_end
        return first + self.context_bytes >= len(document) and number not in self.cut and learned

    def stays_whole(self, index: int) -> bool:
        return isinstance(self.documents[self._where[index][0]], Marked)

    def start(self, index: int) -> int:
        """Of its document, the first byte of a segment."""
        return self._where[index][1]

    def read(self, index: int, start: int, end: int) -> Piece:
        number, first = self._where[index]
        document = self.documents[number]
        if isinstance(document, Marked):
            last = vocab.PAD if number in self.cut or not document.learns_end else vocab.EOS
            return piece_of(document, first + start, first + end, last)
        if first + end < len(document):
            following = document[first + end] + vocab.OFFSET
        else:
            following = vocab.PAD if number in self.cut else vocab.EOS
        return Piece(document[first + start : first + end], following)


def piece_of(document: Marked, start: int, end: int, last: int) -> Piece:
    """Bytes start..end of a marked document; ``last``: what follows it."""
    inside = document[start : end + 1]  # and what follows
    whole = Piece(bytes(inside), last, None, inside.learned(), inside.specials)
    return whole.part(0, end - start)
