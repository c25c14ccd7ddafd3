"""How many bits does a noise add by itself? Those of its own choices, given the clean text.

A noise is a channel: it turns a text into another one with a known probability. The bits of what
came out are ``-log2 P(noisy | clean)``, summed over all ways in which the noise could have written
it, so that nothing that a reader cannot see is counted: of "ll" without one "l" nobody knows which
is missing. Its mean over the noise's choices is the entropy that the noise adds. A model that knew
the clean text and the noise would need so many bits; what it needs above them is for the text.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from functools import cache
from itertools import groupby

import numpy as np
import numpy.typing as npt

from blt.errors import UserError
from blt.texts.noises import Choices, to_bytes


def chosen_bits(choices: Choices, clean: str, noisy: str) -> float:
    """Bits of ``noisy`` under a noise of choices: over all ways to write it, place by place.

    Bytes are compared, since what is written side by side may become one character.
    """
    wanted = to_bytes(noisy)
    ways: list[dict[int, float]] = [{} for _ in range(len(clean) + 1)]  # read -> written: log P
    ways[0][0] = 0.0
    for at in range(len(clean)):
        here, ways[at] = ways[at], {}
        choosable = choices(clean, at) if here else []
        options = [(taken, to_bytes(text), share) for taken, text, share in choosable if share]
        for done, log_p in here.items():
            for taken, out, share in options:
                if wanted.startswith(out, done):
                    there, end = ways[at + taken], done + len(out)
                    new = log_p + math.log(share)
                    there[end] = np.logaddexp(there[end], new) if end in there else new
    return _bits(ways[-1].get(len(wanted), -math.inf))


def case_bits(clean: str, noisy: str) -> float:
    """Of RandomCase: one for each character with two cases."""
    return float(sum(c.upper() != c.lower() for c in clean))


def repeat_bits(clean: str, noisy: str, shares: tuple[float, ...]) -> float:
    """Of Repeat, which writes a character n times with probability ``shares[n - 1]``.

    Runs of one character stay runs, one for one; a run of r may have become one of K in as many
    ways as r numbers sum up to K.
    """
    runs = [_runs(clean), _runs(noisy)]
    if [c for c, _ in runs[0]] != [c for c, _ in runs[1]]:
        return _bits(-math.inf)
    log_p = 0.0
    for (_, length), (_, found) in zip(*runs, strict=True):
        sums = _sums(shares, length)
        if not length <= found < length + len(sums):
            return _bits(-math.inf)
        log_p += math.log(sums[found - length])
    return _bits(log_p)


def drop_bits(clean: str, noisy: str, share: float) -> float:
    """Of Drop, which leaves out each character with probability ``share``.

    P is the number of ways in which ``noisy`` lies in ``clean``, times the probability of so many
    gaps; ways are counted by how many characters are missing so far, which is at most all that are.
    """
    missing = len(clean) - len(noisy)
    if missing < 0:
        return _bits(-math.inf)
    nothing = np.full(missing, -1, dtype=np.int64)
    behind = np.concatenate([nothing, _codes(noisy), nothing])  # what place i - k would be
    ways = np.zeros(missing + 1)  # by characters missing so far; scaled to a sum of 1
    ways[0], log_p = 1.0, 0.0
    for at, code in enumerate(_codes(clean).tolist()):
        kept = ways * (behind[at : at + missing + 1][::-1] == code) * (1 - share)
        kept[1:] += share * ways[:-1]
        total = float(kept.sum())
        if total == 0:
            return _bits(-math.inf)
        log_p += math.log(total)
        ways = kept / total
    return _bits(log_p + math.log(ways[-1]) if ways[-1] else -math.inf)


def _bits(log_p: float) -> float:
    if log_p == -math.inf:
        raise UserError("this noise does not make the one text of the other")
    return -log_p / math.log(2) + 0.0  # not -0.0


def _codes(text: str) -> npt.NDArray[np.int64]:
    return np.array([ord(c) for c in text], dtype=np.int64)


def _runs(text: Iterable[str]) -> list[tuple[str, int]]:
    return [(c, sum(1 for _ in group)) for c, group in groupby(text)]


@cache
def _sums(shares: tuple[float, ...], count: int) -> npt.NDArray[np.float64]:
    """Probability that ``count`` repeated characters are count, count + 1, ... together."""
    if count == 1:
        return np.array(shares)
    half = _sums(shares, count // 2)
    return np.convolve(half, _sums(shares, count - count // 2))
