"""Text of which only some is learned, such as the answers of a conversation."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import SupportsIndex, overload

import numpy as np
import torch
from torch import Tensor

from blt import vocab

Span = tuple[int, int]
STAND_IN = 10  # the byte, a newline, that has the place of a special id


class Marked(bytes):
    """A text that is read whole, of which some is learned; as bytes, it is what is read.

    A slice of it is marked as well. Two texts of the same bytes are equal, whatever is learned.

    Attributes:
        spans: (start, end) of what is learned, in order and apart.
        specials: (place, id) of special ids inside; each counts as a byte, and is a newline there.
        learns_end: is the end of the text learned, if it is there?
    """

    spans: tuple[Span, ...]
    specials: tuple[tuple[int, int], ...]
    learns_end: bool

    def __new__(
        cls,
        data: bytes,
        spans: Iterable[Span],
        specials: Iterable[tuple[int, int]] = (),
        learns_end: bool = True,
    ) -> Marked:
        text = super().__new__(cls, data)
        text.spans, text.specials = tuple(spans), tuple(specials)
        text.learns_end = learns_end
        return text

    @overload
    def __getitem__(self, key: SupportsIndex, /) -> int: ...
    @overload
    def __getitem__(self, key: slice, /) -> Marked: ...

    def __getitem__(self, key: SupportsIndex | slice, /) -> int | Marked:
        if not isinstance(key, slice):
            return super().__getitem__(key)
        start, end, step = key.indices(len(self))
        if step != 1:
            raise ValueError("only neighbouring bytes of a marked text are a marked text")
        end = max(start, end)
        within = ((max(a, start) - start, min(b, end) - start) for a, b in self.spans)
        return Marked(
            super().__getitem__(key),
            ((a, b) for a, b in within if a < b),
            ((at - start, special) for at, special in self.specials if start <= at < end),
            self.learns_end and end == len(self),
        )

    def learns(self, start: int, end: int, ends: bool = True) -> bool:
        """Is there something to learn for who reads bytes start..end: of them, or what follows?

        Args:
            ends: is the end of the text there?
        """
        if end >= len(self) and self.learns_end and ends:
            return True
        return any(a <= end and start < b for a, b in self.spans)

    def learned(self) -> np.ndarray:
        """Which bytes are learned  # [bytes] bool."""
        found = np.zeros(len(self), dtype=bool)
        for start, end in self.spans:
            found[start:end] = True
        return found


def num_learned(text: bytes) -> int:
    """Bytes of a text that are learned, special ids inside among them."""
    return sum(b - a for a, b in text.spans) if isinstance(text, Marked) else len(text)


def encode(text: bytes) -> Tensor:
    """Ids of a text, special ones in their places, BOS in front  # [bytes + 1] int64."""
    return put_in(vocab.encode(text), text.specials if isinstance(text, Marked) else ())


def put_in(ids: Tensor, specials: Iterable[tuple[int, int]]) -> Tensor:
    """``ids`` of a text, BOS first, with special ones put into their places, in place."""
    for place, special in specials:
        ids[place + 1] = special
    return ids


def targets(text: bytes) -> Tensor:
    """What to predict after each of its ids, BOS first; nothing after the last  # [bytes + 1]."""
    ids = encode(text).roll(-1)
    ids[-1] = vocab.PAD
    if isinstance(text, Marked):
        ids[:-1][torch.from_numpy(~text.learned())] = vocab.PAD
    return ids


def spans_of(learned: np.ndarray) -> list[Span]:
    """Runs of what is true  # [bytes] bool."""
    edges = np.flatnonzero(np.diff(learned.astype(np.int8), prepend=0, append=0)).tolist()
    return list(zip(edges[::2], edges[1::2], strict=True))


def marked(parts: Sequence[tuple[bytes | Sequence[int], bool]], every: bool = False) -> bytes:
    """A document of parts, each bytes or ids over bytes, that are learned or not.

    An EOS at its end becomes the document's own, which every document has: it is learned if the
    last part is.

    Args:
        every: all of it is learned.
    """
    ids = np.concatenate([np.empty(0, np.int16), *(_ids(part) for part, _ in parts)])
    learned = np.repeat(
        [is_learned or every for _, is_learned in parts], [len(p) for p, _ in parts]
    )
    learns_end = every or bool(parts and parts[-1][1])
    if len(ids) and ids[-1] == vocab.EOS:
        ids, learned = ids[:-1], learned[:-1]
    special = ids < vocab.OFFSET
    data = np.where(special, STAND_IN, ids - vocab.OFFSET).astype(np.uint8).tobytes()
    if learns_end and learned.all() and not special.any():
        return data
    places = np.flatnonzero(special)
    specials = zip(places.tolist(), ids[places].tolist(), strict=True)
    return Marked(data, spans_of(learned), specials, learns_end)


def runs(text: bytes) -> list[tuple[int, int]]:
    """Ends of the parts of a text of which each is learned or not, special ids each by itself."""
    if not isinstance(text, Marked):
        return [(0, len(text))]
    edges = {0, len(text), *(edge for span in text.spans for edge in span)}
    edges |= {edge for at, _ in text.specials for edge in (at, at + 1)}
    return list(pairwise(sorted(edges)))


def _ids(part: bytes | Sequence[int]) -> np.ndarray:
    if isinstance(part, bytes):
        return np.frombuffer(part, np.uint8).astype(np.int16) + np.int16(vocab.OFFSET)
    return np.asarray(part, dtype=np.int16)
