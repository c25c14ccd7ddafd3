"""What noise costs a model: in the text that is scored, and in the context of clean text.

Bits are per byte of the *clean* text, whatever the noise makes of its length, and without the bits
of the noise's own choices (:mod:`blt.evals.channels`), which no model can foresee.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from blt.evals.noise import HELD_OUT, PAPER, Noise, channel_bits, disturb
from blt.evals.rows import Measured, Options, Row
from blt.evals.typos import typos
from blt.lm import LanguageModel
from blt.machine.precision import autocast
from blt.scoring.bits import piece_bits

SEEDS = 3  # of each noise that has anything to choose
STRIDE = 1_000_003  # from the seeds of one noise to those of the next; more than there are pieces
REACH = 64  # bytes before the middle of a piece, where a space is looked for
MAIN = "more_bits"
WHOLE, CONTEXT = "all of it", "the first half"


@dataclass(frozen=True)
class Text:
    """Pieces to disturb, and what they cost clean."""

    pieces: Sequence[bytes]
    strata: Sequence[int]
    halves: Sequence[tuple[bytes, bytes]]
    bits: Sequence[float]  # of each clean piece
    rest: Sequence[float]  # of each clean second half after a clean first one


def rows(
    lm: LanguageModel, pieces: Sequence[bytes], strata: Sequence[int], options: Options
) -> Iterator[Measured]:
    """The clean text, then each noise in all of it and in its first half, then means by kind."""
    parts = [halves(piece) for piece in pieces]
    bits = piece_bits(lm, pieces, options.dtype(lm))
    text = Text(pieces, strata, parts, bits, _after(lm, parts, options))
    for where, clean, sizes in (
        (WHOLE, text.bits, list(map(len, pieces))),
        (CONTEXT, text.rest, [len(rest) for _, rest in parts]),
    ):
        yield _row("none", "clean", where, [clean], [[0.0] * len(clean)], clean, sizes, strata)
    kinds = {"paper's": PAPER, "held out": dict(HELD_OUT)}
    if options.typos is not None:
        kinds["held out"]["Typos"] = typos(options.typos)
    for kind, noises in kinds.items():
        found: dict[str, list[Measured]] = {WHOLE: [], CONTEXT: []}
        for name, noise in noises.items():
            for where, one in zip(found, _both(lm, name, kind, noise, text, options), strict=True):
                found[where].append(one)
                yield one
        for where, measured in found.items():
            yield _mean(f"mean of {len(noises)}", kind, where, measured)


def halves(piece: bytes) -> tuple[bytes, bytes]:
    """A piece in two, before the white space between two words near its middle: tokens end there.

    Where none is near, in the middle, or at the beginning of the character there.
    """
    middle = len(piece) // 2
    for at in range(middle, max(0, middle - REACH), -1):
        if piece[at : at + 1].isspace() and not piece[at - 1 : at].isspace():
            return piece[:at], piece[at:]
    near = range(middle, max(-1, middle - 4), -1)
    at = next((at for at in near if at < len(piece) and piece[at] & 0xC0 != 0x80), middle)
    return piece[:at], piece[at:]


def _both(
    lm: LanguageModel, name: str, kind: str, noise: Noise, text: Text, options: Options
) -> Iterator[Measured]:
    """One noise in all of the text, then in the first half of each piece."""
    seeds = range(SEEDS if noise.random else 1)
    scored: list[list[float]] = []
    channel: list[list[float]] = []
    for seed in seeds:
        noisy = [disturb(p, noise, seed * STRIDE + n) for n, p in enumerate(text.pieces)]
        pairs = zip(text.pieces, noisy, strict=True)
        channel.append([channel_bits(clean, dirty, noise) for clean, dirty in pairs])
        scored.append(piece_bits(lm, noisy, options.dtype(lm)))
    sizes = list(map(len, text.pieces))
    yield _row(name, kind, WHOLE, scored, channel, text.bits, sizes, text.strata)
    after = []
    for seed in seeds:
        begun = [
            (disturb(first, noise, seed * STRIDE + n), rest)
            for n, (first, rest) in enumerate(text.halves)
        ]
        after.append(_after(lm, begun, options))
    nothing = [[0.0] * len(sizes) for _ in seeds]
    sizes = [len(rest) for _, rest in text.halves]
    yield _row(name, kind, CONTEXT, after, nothing, text.rest, sizes, text.strata)


def _after(
    lm: LanguageModel, pairs: Sequence[tuple[bytes, bytes]], options: Options
) -> list[float]:
    """Bits of each second text after its first."""
    with autocast(lm.device, options.dtype(lm)):
        return [-score.log_p / math.log(2) for score in lm.score(pairs)]


def _row(
    name: str,
    kind: str,
    where: str,
    scored: Sequence[Sequence[float]],
    channel: Sequence[Sequence[float]],
    clean: Sequence[float],
    sizes: Sequence[int],
    strata: Sequence[int],
) -> Measured:
    """Bits per byte of clean text: means over the seeds of the noise, [S, P] each."""
    total = max(1, sum(sizes))
    bits = [sum(one) / total for one in scored]
    own = [sum(one) / total for one in channel]
    more = [x - y - sum(clean) / total for x, y in zip(bits, own, strict=True)]
    mean, added = statistics.fmean(bits), statistics.fmean(own)
    row: Row = {
        "noise": name,
        "kind": kind,
        "in": where,
        "bits_per_byte": mean,
        "noise_bits": added,
        "above_noise": mean - added,
        MAIN: statistics.fmean(more),
        "seeds_sd": statistics.stdev(more) if len(more) > 1 else None,
    }
    values = [
        sum(s) / len(s) - sum(c) / len(c) - before
        for s, c, before in zip(
            zip(*scored, strict=True), zip(*channel, strict=True), clean, strict=True
        )
    ]
    return Measured(row, MAIN, values, sizes, strata)


def _mean(name: str, kind: str, where: str, rows: Sequence[Measured]) -> Measured:
    """Noises of one kind together, all on the same pieces."""
    columns: Mapping[str, list[float]] = {
        key: [one.row[key] for one in rows]
        for key in ("bits_per_byte", "noise_bits", "above_noise", MAIN)
    }
    row: Row = {"noise": name, "kind": kind, "in": where}
    row |= {key: statistics.fmean(values) for key, values in columns.items()}
    values = [statistics.fmean(of) for of in zip(*(one.values for one in rows), strict=True)]
    return Measured(row | {"seeds_sd": None}, MAIN, values, rows[0].sizes, rows[0].strata)
