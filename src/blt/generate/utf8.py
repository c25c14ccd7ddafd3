"""Which bytes may follow so that a text stays, and ends as, valid UTF-8 (RFC 3629, table in §4)."""

from __future__ import annotations

import numpy as np

from blt.vocab import EOS, OFFSET, VOCAB_SIZE, unfinished

# A state is what may still come of the character begun: ranges of bytes, one per byte.
Rest = tuple[tuple[int, int], ...]
_ANY = (0x80, 0xBF)
WHOLE: Rest = ()


def _leads() -> dict[int, Rest]:
    """What must follow each byte that can begin a character."""
    leads: dict[int, Rest] = dict.fromkeys(range(128), WHOLE)
    leads |= dict.fromkeys(range(194, 224), (_ANY,))
    leads |= dict.fromkeys(range(225, 240), (_ANY, _ANY))
    leads |= dict.fromkeys(range(241, 244), (_ANY, _ANY, _ANY))
    leads[0xE0] = ((0xA0, 0xBF), _ANY)  # no overlong forms
    leads[0xED] = ((0x80, 0x9F), _ANY)  # no surrogates
    leads[0xF0] = ((0x90, 0xBF), _ANY, _ANY)
    leads[0xF4] = ((0x80, 0x8F), _ANY, _ANY)  # nothing above U+10FFFF
    return leads


LEADS = _leads()


def after(rest: Rest, byte: int) -> Rest | None:
    """The state after one more byte; None where it is not allowed."""
    if not rest:
        return LEADS.get(byte)
    low, high = rest[0]
    return rest[1:] if low <= byte <= high else None


def state_of(data: bytes) -> Rest:
    """The state after any bytes: invalid ones are over and done with."""
    rest = WHOLE
    for byte in unfinished(data):
        rest = after(rest, byte) or WHOLE
    return rest


def states() -> list[Rest]:
    """All that a text can be in, WHOLE first."""
    found = [WHOLE]
    for rest in found:
        for byte in range(256):
            following = after(rest, byte)
            if following is not None and following not in found:
                found.append(following)
    return found


def forbidden(rest: Rest, remaining: int) -> np.ndarray:
    """Ids that cannot be next if ``remaining`` bytes may still be written  # [260] bool.

    No character is begun that does not fit. One that was begun is gone on with whatever remains:
    who begins it here had the room, and :mod:`blt.generate.spelling` gives up one that a prompt
    has begun where there is none.
    """
    remaining = max(remaining, len(rest), 1)
    mask = np.ones(VOCAB_SIZE, dtype=bool)
    for byte in range(256):
        following = after(rest, byte)
        if following is not None and 1 + len(following) <= remaining:
            mask[byte + OFFSET] = False
    if not rest:
        mask[EOS] = False
    return mask
