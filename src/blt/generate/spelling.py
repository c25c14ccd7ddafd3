"""What may be written next, in tables: one look-up says it, whether text must be valid or not."""

from __future__ import annotations

from functools import cache
from typing import NamedTuple

import numpy as np

from blt.generate import utf8
from blt.vocab import BOE, BOS, BPE, EOS, OFFSET, VOCAB_SIZE

MOST_ROOM = 4  # bytes of a character at most: more that may be written change nothing
NEVER = [BOE, BOS, BPE]  # only bytes and EOS can be written


class Tables(NamedTuple):
    """By state: what may still come of a character, or that bytes may be anything; and whether the
    text may end by itself.

    Attributes:
        banned: [states, 1 + MOST_ROOM, 260] bool: ids, by bytes that may still be written.
        highest: the same as the highest score that each id may have, -inf or inf  # float64
        following: states after each id, [states][260].
    """

    banned: np.ndarray
    highest: np.ndarray
    following: list[list[int]]


@cache
def tables() -> Tables:
    """Those of :mod:`blt.generate.utf8`, for every state."""
    banned, following = [], []
    for index, rest in enumerate((*_rests(), None)):  # None: bytes may be anything
        for ignores_eos in (False, True):
            masks = np.zeros((1 + MOST_ROOM, VOCAB_SIZE), dtype=bool)
            row = [2 * index + ignores_eos] * VOCAB_SIZE
            if rest is not None:
                masks[:] = [utf8.forbidden(rest, room) for room in range(1 + MOST_ROOM)]
                for byte in range(256):
                    after = _rests().index(utf8.after(rest, byte) or utf8.WHOLE)
                    row[byte + OFFSET] = 2 * after + ignores_eos
            masks[:, NEVER] = True
            masks[:, EOS] |= ignores_eos
            banned.append(masks)
            following.append(row)
    masks = np.stack(banned)
    return Tables(masks, np.where(masks, -np.inf, np.inf), following)


@cache
def _rests() -> tuple[utf8.Rest, ...]:
    return tuple(utf8.states())


def first(begun: bytes, room: int, *, valid_utf8: bool, ignore_eos: bool) -> int:
    """The state of a text of ``room`` bytes at most, whose prompt has begun a character.

    Where the rest of the character fits it is gone on with; else it is given up, and the text
    begins with a new one.
    """
    rest = utf8.state_of(begun)
    if len(rest) > room:
        rest = utf8.WHOLE
    return 2 * (_rests().index(rest) if valid_utf8 else len(_rests())) + ignore_eos
