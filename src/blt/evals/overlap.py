"""Does text to be scored occur in the text that was trained on?"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

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
    each = [blocks(heldout) for heldout in groups]
    wanted = np.unique(np.concatenate([*each, _NONE]))
    found = _found(train, wanted)
    return [float(found[np.searchsorted(wanted, of)].mean()) if len(of) else 0.0 for of in each]


def blocks(texts: Iterable[bytes]) -> np.ndarray:
    """Hashes of the blocks of 50 bytes, end to end, of some texts, each once  # [blocks] uint64"""
    return blocks_of([np.frombuffer(text, dtype=np.uint8) for text in texts])


def blocks_of(texts: Sequence[np.ndarray]) -> np.ndarray:
    """:func:`blocks` of texts of any units, such as code points  # [n] each, unsigned"""
    whole = [text[: len(text) // BLOCK * BLOCK] for text in texts]
    columns = np.concatenate([*whole, np.empty(0, np.uint8)]).reshape(-1, BLOCK).T  # [50, blocks]
    return np.unique(_mixed(_codes(column) for column in columns))


def hold(texts: Sequence[np.ndarray], wanted: np.ndarray) -> list[bool]:
    """Of each text: are any 50 units of it, side by side, one of the blocks ``wanted``?"""
    hashes = [_hashes(text) for text in texts]
    if not len(wanted) or not hashes:
        return [False] * len(texts)
    every = np.concatenate(hashes)
    order = np.argsort(every)  # in order, they are looked up several times as fast
    at = np.minimum(np.searchsorted(wanted, every[order]), len(wanted) - 1)
    found = np.zeros(len(every), dtype=bool)
    found[order] = wanted[at] == every[order]
    ends = np.cumsum([len(of) for of in hashes])[:-1]
    return [bool(part.any()) for part in np.split(found, ends)]


def _found(train: Sequence[bytes], wanted: np.ndarray) -> np.ndarray:
    """Which hashes, ascending, are those of 50 bytes somewhere in the training text?"""
    found = np.zeros(len(wanted), dtype=bool)
    for text in train if len(wanted) else ():
        for start in range(0, len(text), CHUNK):
            part = text[start : start + CHUNK + BLOCK - 1]
            hashes = _hashes(np.frombuffer(part, dtype=np.uint8))
            at = np.searchsorted(wanted, hashes)
            at[at == len(wanted)] = 0
            found[at[wanted[at] == hashes]] = True
    return found


_NONE = np.empty(0, dtype=np.uint64)


def _hashes(text: np.ndarray) -> np.ndarray:
    """Hashes of the 50 units from each position on  # [n] -> [n - 49] uint64"""
    if len(text) < BLOCK:
        return _NONE
    data = _codes(text)
    positions = len(data) - BLOCK + 1
    return _mixed(data[offset : offset + positions] for offset in range(BLOCK))


def _codes(data: np.ndarray) -> np.ndarray:
    return data.astype(np.uint64) + np.uint64(1)


def _mixed(columns: Iterable[np.ndarray]) -> np.ndarray:
    """Polynomials modulo 2**64 of what stands in 50 columns, mixed  # [n] each -> [n]"""
    out = np.zeros((), dtype=np.uint64)
    with np.errstate(over="ignore"):
        for column in columns:
            out = out * FACTOR + column
        return (out ^ (out >> np.uint64(29))) * FACTOR
