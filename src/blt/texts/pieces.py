"""Pieces of documents, groups of about so many bytes, and samples: each the same every time."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from itertools import accumulate, pairwise

import numpy as np

from blt.texts.marked import Marked, num_learned

BATCH_BYTES = 16384  # of pieces that a model reads together
LEAST = 512  # bytes of a document to be judged by, if it has so many


def segments(documents: Sequence[bytes], context_bytes: int) -> list[bytes]:
    """Documents cut into pieces of at most ``context_bytes``."""
    return [
        document[at : at + context_bytes]
        for document in documents
        for at in range(0, len(document), context_bytes)
    ]


def groups(lengths: Sequence[int], most: int) -> list[list[int]]:
    """Indices of what is not empty, in groups of at most ``most`` together; a longer one alone."""
    found: list[list[int]] = []
    size = most
    for index, length in enumerate(lengths):
        if length == 0:
            continue
        if size + length > most:
            found.append([])
            size = 0
        found[-1].append(index)
        size += length
    return found


def grouped(pieces: Sequence[bytes], most: int) -> Iterator[list[bytes]]:
    """Pieces that are not empty, in groups of at most ``most`` bytes; a longer one alone."""
    for group in groups([len(piece) for piece in pieces], most):
        yield [pieces[index] for index in group]


def streamed(pieces: Iterable[bytes], least: int) -> Iterator[list[bytes]]:
    """Pieces in groups of at least ``least`` bytes, but for the last; none is looked at ahead."""
    group: list[bytes] = []
    size = 0
    for piece in pieces:
        group.append(piece)
        size += len(piece)
        if size >= least:
            yield group
            group, size = [], 0
    if group:
        yield group


def sample(documents: Sequence[bytes], context_bytes: int, size: int | None) -> list[bytes]:
    """Pieces of at most ``context_bytes`` from everywhere, about ``size`` bytes (None: all)."""
    pieces = segments(documents, context_bytes)
    if size is None or sum(map(len, pieces)) <= size:
        return pieces
    chosen: list[bytes] = []
    total = 0
    for index in np.random.default_rng(0).permutation(len(pieces)):
        if total >= size:
            break
        chosen.append(pieces[index])
        total += len(pieces[index])
    return chosen


def choose(
    documents: Sequence[bytes], max_bytes: int | None = None, context_bytes: int = 2048
) -> list[bytes]:
    """The pieces of :func:`drawn`, those of all documents in one list.

    Of marked documents, whose answers say nothing without what they answer, the pieces are those
    of training, from their beginning and with something learned in each: whole ones, in the order
    of the documents' hashes, about their share of ``max_bytes``.
    """
    marked = [document for document in documents if isinstance(document, Marked)]
    plain = [document for document in documents if not isinstance(document, Marked)]
    rest = max_bytes
    if marked and max_bytes is not None:
        rest = max_bytes * sum(map(len, plain)) // max(1, sum(map(len, documents)))
    found = [piece for pieces in drawn(plain, rest, context_bytes) for piece in pieces]
    left = None if max_bytes is None or rest is None else max_bytes - rest
    return found + (_learned(marked, left, context_bytes) if marked else [])


def _learned(documents: Sequence[Marked], max_bytes: int | None, context_bytes: int) -> list[bytes]:
    found, size = list[bytes](), 0
    for document in sorted(documents, key=lambda text: hashlib.sha256(text).digest()):
        for at in range(0, len(document), context_bytes):
            if found and max_bytes is not None and size >= max_bytes:
                return found
            piece = document[at : at + context_bytes]
            if num_learned(piece):
                found.append(piece)
                size += len(piece)
    return found


def drawn(
    documents: Sequence[bytes], max_bytes: int | None = None, context_bytes: int = 2048
) -> list[list[bytes]]:
    """An even part of ``documents``, in pieces: the same bytes of each, from everywhere in it.

    Short documents are taken whole, and what they leave is shared among the longer ones. A longer
    one gives pieces of equal length at equal distances. Where there are so many documents that
    each would give less than :data:`LEAST` bytes, too little context to be judged by, only some
    are drawn, by their hashes, with about so many bytes of each. What is drawn does not depend on
    the order of the documents.

    Args:
        max_bytes: bytes of all together: exactly so many, or all there are. None: everything.
        context_bytes: of the longest piece.

    Returns:
        the pieces of each document that has any, in the order of the documents' hashes.
    """
    ordered = sorted(filter(None, documents), key=lambda text: hashlib.sha256(text).digest())
    lengths = [len(document) for document in ordered]
    shares = _shares(lengths, max_bytes, min(LEAST, context_bytes))
    pairs = zip(ordered, shares, strict=True)
    return [_spread(document, share, context_bytes) for document, share in pairs if share]


def _shares(lengths: Sequence[int], total: int | None, least: int) -> list[int]:
    """How many bytes of each document, ``total`` together."""
    if total is None or total >= sum(lengths):
        return list(lengths)
    ends = accumulate(min(length, least) for length in lengths)
    count = next((n for n, end in enumerate(ends, 1) if end >= total), len(lengths))
    return _leveled(lengths[:count], total) + [0] * (len(lengths) - count)


def _leveled(lengths: Sequence[int], total: int) -> list[int]:
    """The shorter ones whole, and as much as there is of the others, ``total`` together."""
    left = total
    for done, length in enumerate(sorted(lengths)):
        level, over = divmod(left, len(lengths) - done)
        if length > level:  # so are all that follow
            break
        left -= length
    extra = iter([1] * over)  # the rest of the division, a byte each
    return [length if length <= level else level + next(extra, 0) for length in lengths]


def _spread(document: bytes, size: int, context_bytes: int) -> list[bytes]:
    """``size`` bytes of a document as pieces of equal length, each amid a part of equal length."""
    if size == len(document):
        return segments([document], context_bytes)
    count = -(-size // context_bytes)
    edges = [index * size // count for index in range(count + 1)]  # were they end to end
    unused = len(document) - size
    gaps = [unused * (2 * index + 1) // (2 * count) for index in range(count)]  # before each
    return [
        document[start + gap : end + gap]
        for (start, end), gap in zip(pairwise(edges), gaps, strict=True)
    ]
