"""Noises with the bits of their own choices: the paper's five (§6.1, table 3), and held-out ones.

The same seed and text give the same noise. Nothing is trained on the held-out ones, unless a recipe
names them in ``data.noises``.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from blt.evals.channels import case_bits, chosen_bits, drop_bits, repeat_bits
from blt.texts.noises import (
    CHOICES,
    DROPPED,
    MOST_TIMES,
    NOISES,
    REPEATED,
    Choice,
    Choices,
    Disturb,
    characters,
    to_bytes,
    written,
)

TIMES = (1 - REPEATED, *[REPEATED / (MOST_TIMES - 1)] * (MOST_TIMES - 1))  # once, twice, ...

Bits = Callable[[str, str], float]  # of the noise's own choices, given the clean and the noisy text


@dataclass(frozen=True)
class Noise:
    """One way to disturb a text."""

    disturb: Disturb
    bits: Bits
    random: bool = True  # is there anything to choose?


def chosen(choices: Choices) -> Noise:
    """A noise that goes through a text and chooses what to write."""
    return Noise(partial(written, choices), partial(chosen_bits, choices))


def in_text(bits: Bits, choices: Choices) -> Bits:
    """``bits`` where all is UTF-8; elsewhere invalid bytes that come together may be a character,
    which is no character of the clean text: there over all ways of ``choices``."""

    def of(clean: str, noisy: str) -> float:
        valid = not any("\udc80" <= c <= "\udcff" for c in clean)
        return bits(clean, noisy) if valid else chosen_bits(choices, clean, noisy)

    return of


def _dropped(text: str, at: int) -> list[Choice]:
    return [(1, "", DROPPED), (1, text[at], 1 - DROPPED)]


def _repeated(text: str, at: int) -> list[Choice]:
    return [(1, text[at] * times, share) for times, share in enumerate(TIMES, 1)]


def _none(_: str, __: str) -> float:
    return 0.0


PAPER: dict[str, Noise] = {  # those that the paper trains nothing on and reports
    "AntSpeak": Noise(NOISES["AntSpeak"], _none, random=False),
    "Drop": Noise(NOISES["Drop"], in_text(partial(drop_bits, share=DROPPED), _dropped)),
    "RandomCase": Noise(NOISES["RandomCase"], case_bits),
    "Repeat": Noise(NOISES["Repeat"], in_text(partial(repeat_bits, shares=TIMES), _repeated)),
    "UpperCase": Noise(NOISES["UpperCase"], _none, random=False),
}
HELD_OUT: dict[str, Noise] = {name: chosen(choices) for name, choices in CHOICES.items()}


def disturb(text: bytes, noise: str | Noise, seed: int = 0) -> bytes:
    """``text`` with one of :data:`PAPER` or :data:`HELD_OUT`, or another noise."""
    way = noise if isinstance(noise, Noise) else {**PAPER, **HELD_OUT}[noise]
    parts = way.disturb(characters(text), random.Random(seed))
    return to_bytes("".join(part for part, _ in parts))


def channel_bits(clean: bytes, noisy: bytes, noise: str | Noise) -> float:
    """Bits that the noise's own choices have, given the clean text: ``-log2 P(noisy | clean)``.

    Raises:
        UserError: the noise cannot make the one of the other.
    """
    way = noise if isinstance(noise, Noise) else {**PAPER, **HELD_OUT}[noise]
    return way.bits(characters(clean), characters(noisy))
