"""Does text to be scored occur in the text that was trained on?"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

BLOCK = 50  # bytes
FACTOR = np.uint64(0x9E3779B97F4A7C15)  # odd, so that no power of it loses bits
CHUNK = 2**22  # positions of training text that are hashed at once


def overlap(train: Sequence[bytes], heldout: Sequence[bytes]) -> float:
    """Share of ``heldout``'s different blocks of 50 bytes, end to end, that occur in ``train``.

    Blocks are compared by 64-bit hashes; a document's rest of fewer than 50 bytes is left out.
    """
    return overlaps(train, [heldout])[0]


def overlaps(train: Sequence[bytes], groups: Sequence[Sequence[bytes]]) -> list[float]:
    """:func:`overlap` of each of many groups of documents, the training text read once."""
    blocks = [
        np.unique(np.concatenate([_hashes(text)[::BLOCK] for text in heldout] or [_NONE]))
        for heldout in groups
    ]
    wanted = np.unique(np.concatenate([*blocks, _NONE]))
    found = _found(train, wanted)
    return [float(found[np.searchsorted(wanted, of)].mean()) if len(of) else 0.0 for of in blocks]


def _found(train: Sequence[bytes], wanted: np.ndarray) -> np.ndarray:
    """Which hashes, ascending, are those of 50 bytes somewhere in the training text?"""
    found = np.zeros(len(wanted), dtype=bool)
    for text in train if len(wanted) else ():
        for start in range(0, len(text), CHUNK):
            hashes = _hashes(text[start : start + CHUNK + BLOCK - 1])
            at = np.searchsorted(wanted, hashes)
            at[at == len(wanted)] = 0
            found[at[wanted[at] == hashes]] = True
    return found


_NONE = np.empty(0, dtype=np.uint64)


def _hashes(text: bytes) -> np.ndarray:
    """Hashes of the 50 bytes from each position on: polynomials modulo 2**64, mixed  # [n - 49]."""
    if len(text) < BLOCK:
        return _NONE
    data = np.frombuffer(text, dtype=np.uint8).astype(np.uint64) + np.uint64(1)
    out = np.zeros(len(data) - BLOCK + 1, dtype=np.uint64)
    with np.errstate(over="ignore"):
        for offset in range(BLOCK):
            out *= FACTOR
            out += data[offset : offset + len(out)]
        out ^= out >> np.uint64(29)
        out *= FACTOR
    return out
