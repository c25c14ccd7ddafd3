"""Characters in bytes: where they end, and which script they stand in."""

from __future__ import annotations

import sys
import unicodedata
from collections.abc import Sequence
from functools import cache
from typing import NamedTuple

import numpy as np
from torch import Tensor

from blt.vocab import BOS, OFFSET, VOCAB_SIZE

NONE, LATIN = 0, 1  # numbers of scripts; NONE: no letter of any
MOST_SCRIPTS = 256
NO_SCRIPT = {"COMBINING", "MODIFIER", "VARIATION"}  # first words of letters that any script has
OPEN, INSIDE, BROKEN = 0, 1, 2  # after a whole character, within one, after what is no UTF-8
LEADS = ((0xC2, 0xDF, 0x1F), (0xE0, 0xEF, 0x0F), (0xF0, 0xF4, 0x07))  # least, most, their bits


@cache
def script_numbers() -> np.ndarray:
    """Number of the script of every code point  # [0x110000] uint8.

    A script is the first word of its letters' names: CYRILLIC, HIRAGANA, CJK.
    """
    found = np.zeros(sys.maxunicode + 1, dtype=np.uint8)
    numbers = {"": NONE, "LATIN": LATIN}
    for code in range(sys.maxunicode + 1):
        if unicodedata.category(chr(code))[0] in "LM":
            word = unicodedata.name(chr(code), "").split(" ")[0].split("-")[0]
            if word not in NO_SCRIPT:
                found[code] = min(numbers.setdefault(word, len(numbers)), MOST_SCRIPTS - 1)
    return found


class Ends(NamedTuple):
    """What ends with a byte."""

    code: np.ndarray  # [..] int64 code point of a whole character; -1: none that can be seen
    state: np.ndarray  # [..] uint8 OPEN, INSIDE or BROKEN


def ends_of(last: Sequence[np.ndarray]) -> Ends:
    """What ends with the last of some bytes.

    Args:
        last: values of the last bytes, the oldest first, [..] int64 each; below 0: no byte. With
            fewer than four, a character can be longer than what is seen of it.
    """
    this, *older = last[::-1]
    follows = [_follows(byte) for byte in (this, *older)]
    code = np.where((this >= 0) & (this < 0x80), this, -1)
    value, shift, chain = this & 0x3F, 6, follows[0]
    for (least, most, bits), byte, more in zip(LEADS, older, follows[1:], strict=False):
        leads = chain & (byte >= least) & (byte <= most)
        code = np.where(leads, value | (byte & bits) << shift, code)
        value, shift, chain = value | (byte & 0x3F) << shift, shift + 6, chain & more
    broken = _begun(older) & ~follows[0] if older else np.zeros_like(follows[0])
    state = np.where(broken, BROKEN, np.where(_begun((this, *older)), INSIDE, OPEN))
    return Ends(np.where(code > sys.maxunicode, -1, code), state.astype(np.uint8))


def _follows(byte: np.ndarray) -> np.ndarray:
    """Continuation bytes of UTF-8."""
    return (byte >= 0x80) & (byte <= 0xBF)


def _begun(back: Sequence[np.ndarray]) -> np.ndarray:
    """Has a character begun that is not whole yet? ``back`` are the last bytes, newest first."""
    found = np.zeros_like(back[0], dtype=bool)
    chain = ~found
    for (least, _, _), byte in zip(LEADS, back, strict=False):
        found |= chain & (byte >= least) & (byte <= LEADS[-1][1])
        chain = chain & _follows(byte)
    return found


def characters_of(ids: Tensor) -> tuple[np.ndarray, np.ndarray]:
    """Characters of documents that lie one behind the other, and the scripts that they stand in.

    Args:
        ids: [N], each document from its BOS: Latin until its first letter.

    Returns:
        the code point that ends at each position, or -1, and the script of the last letter up to
        it  # [N] int64 and [N] uint8
    """
    data = ids.numpy() - OFFSET
    padded = np.concatenate((np.full(3, -1), data))
    code = ends_of([padded[at : at + len(data)] for at in range(4)]).code
    scripts = np.where(code >= 0, script_numbers()[np.maximum(code, 0)], NONE)
    scripts[data == BOS - OFFSET] = LATIN
    known = np.maximum.accumulate(np.where(scripts != NONE, np.arange(len(scripts)), 0))
    return code, scripts[known].astype(np.uint8)


def states_of(order: int) -> np.ndarray:
    """OPEN, INSIDE or BROKEN for every context of ``order`` ids  # [260 ** order] uint8."""
    size = VOCAB_SIZE ** (order - 1)
    keys = np.arange(size)
    newer = [keys // VOCAB_SIZE**back % VOCAB_SIZE - OFFSET for back in range(order - 2, -1, -1)]
    found = np.empty((VOCAB_SIZE, size), dtype=np.uint8)
    for oldest in range(VOCAB_SIZE):  # one by one: all together are gigabytes
        found[oldest] = ends_of([np.full(size, oldest - OFFSET), *newer]).state
    return found.ravel()
