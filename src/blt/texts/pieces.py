"""Pieces of documents, groups of about so many bytes, and samples: each the same every time."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence

import numpy as np

BATCH_BYTES = 16384  # of pieces that a model reads together


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


def choose(documents: Sequence[bytes], max_bytes: int | None = None) -> list[bytes]:
    """The same part of ``documents`` every time: in the order of their hashes, at most so many.

    Documents are taken whole until the limit, so few long ones may be all that is taken: of twelve
    texts of equal length and a twelfth of their bytes, one text. It is no even sample.

    Args:
        max_bytes: bytes of all together; the last document is cut there. None: all of them.
    """
    chosen: list[bytes] = []
    left = sum(map(len, documents)) if max_bytes is None else max_bytes
    for document in sorted(documents, key=lambda document: hashlib.sha256(document).digest()):
        if left and document:
            chosen.append(document[:left])
            left -= len(chosen[-1])
    return chosen
