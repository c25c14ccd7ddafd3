"""A sample of the training text in which each source has the share that training gives it."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import cycle

from blt.data.text import Source
from blt.texts.pieces import segments


def training_sample(
    sources: Sequence[Source], weights: Sequence[float], size: int, context_bytes: int
) -> list[bytes]:
    """Pieces from everywhere in the text, ``size`` bytes or as much as there is: always the same.

    Which pieces, does not depend on the order of a source's documents, and each byte of a source is
    as likely as another, as in training. A source that has less than its share is repeated.

    Args:
        sources: of a recipe; what they hold out is never looked at.
        weights: share of each source; none: as much as there is of each.
        size: bytes of the sample.
        context_bytes: of the longest piece.
    """
    there = [source.train.num_bytes for source in sources]
    shares = list(weights or there)
    size = min(size, sum(there))
    return [
        piece
        for source, share in zip(sources, shares, strict=True)
        for piece in _drawn(source, round(size * share / sum(shares)), context_bytes)
    ]


def _drawn(source: Source, size: int, context_bytes: int) -> Iterator[bytes]:
    """Pieces of one source in the order of their hashes, ``size`` bytes; the last one is cut."""
    for piece in cycle(_hashed(segments(source.sample(size), context_bytes))):
        if size <= 0:
            return
        yield piece[:size]
        size -= len(piece)


def _hashed(pieces: Sequence[bytes]) -> list[bytes]:
    """In the order of hashes of the piece and of how often it came before, so that copies part."""
    copies: Counter[bytes] = Counter()
    keyed = []
    for piece in pieces:
        digest = hashlib.sha256(piece).digest()
        keyed.append((hashlib.sha256(digest + str(copies[digest]).encode()).digest(), piece))
        copies[digest] += 1
    return [piece for _, piece in sorted(keyed)]
