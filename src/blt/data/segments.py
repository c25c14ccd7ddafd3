"""Pieces of documents that can be read in any order: from memory here, from disk in ``shards``."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import numpy as np

from blt import vocab


@dataclass(frozen=True)
class Piece:
    """Some bytes of a document.

    Attributes:
        following: id that comes after them: of the next byte, EOS, or PAD where the document was
            cut and its rest is held out.
        entropies: [bytes + 1] nats, of the prediction of each byte given the document before it,
            and of the one after them; None: not known.
        clean: [bytes] bool, which of them a noise left as they were; None: all. Others are read,
            and never predicted.
    """

    data: bytes
    following: int
    entropies: np.ndarray | None = None
    clean: np.ndarray | None = None


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
        """Does a document end with this segment? One that was cut does not."""
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
    """

    def __init__(
        self, documents: Sequence[bytes], context_bytes: int, cut: Collection[int] = ()
    ) -> None:
        if not documents or not all(documents):
            raise ValueError("there must be documents, and none of them empty")
        self.documents, self.context_bytes, self.cut = documents, context_bytes, cut
        self._where = [  # (document, first byte)
            (index, start)
            for index, document in enumerate(documents)
            for start in range(0, len(document), context_bytes)
        ]

    @property
    def num_bytes(self) -> int:
        return sum(map(len, self.documents))

    @cached_property
    def fingerprint(self) -> str:
        digest = hashlib.sha256()
        for document in self.documents:
            digest.update(hashlib.sha256(document).digest())
        return digest.hexdigest()

    def __len__(self) -> int:
        return len(self._where)

    def in_epoch(self, *_: int) -> MemorySegments:
        return self

    def length(self, index: int) -> int:
        document, first = self._where[index]
        return min(self.context_bytes, len(self.documents[document]) - first)

    def ends(self, index: int) -> bool:
        last = index + 1 == len(self._where) or self._where[index + 1][1] == 0
        return last and self._where[index][0] not in self.cut

    def read(self, index: int, start: int, end: int) -> Piece:
        number, first = self._where[index]
        document = self.documents[number]
        if first + end < len(document):
            following = document[first + end] + vocab.OFFSET
        else:
            following = vocab.PAD if number in self.cut else vocab.EOS
        return Piece(document[first + start : first + end], following)
