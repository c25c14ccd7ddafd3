"""Ways to disturb a text: the paper's five (§6.1, table 3), and others that nothing is trained on.

Characters are those of the text as UTF-8; bytes that are none stay as they are, each a character of
its own. The same seed and text give the same noise.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from blt.evals.channels import (
    Choice,
    Choices,
    case_bits,
    chosen_bits,
    drop_bits,
    repeat_bits,
    written,
)

DROPPED = 0.1  # share of characters that Drop leaves out
REPEATED = 0.2  # share of characters that Repeat writes several times
MOST_TIMES = 4  # that a repeated character occurs: 2 to 4 times, equally often
TIMES = (1 - REPEATED, *[REPEATED / (MOST_TIMES - 1)] * (MOST_TIMES - 1))  # once, twice, ...
STRUCK = 0.05  # share of letters that Keyboard replaces by the key beside it
SWAPPED = 0.05  # share of pairs of letters that Swap turns round
MISREAD = 0.1  # share of what looks alike that OCR takes for each other

Disturb = Callable[[str, random.Random], str]
Bits = Callable[[str, str], float]  # of the noise's own choices, given the clean and the noisy text


@dataclass(frozen=True)
class Noise:
    """One way to disturb a text."""

    disturb: Disturb
    bits: Bits
    random: bool = True  # is there anything to choose?


def ant_speak(text: str, _: random.Random) -> str:
    """Upper case, with a space between all characters."""
    return " ".join(text.upper())


def drop(text: str, chance: random.Random) -> str:
    """One character in ten is missing."""
    return "".join(c for c in text if chance.random() >= DROPPED)


def random_case(text: str, chance: random.Random) -> str:
    """Each character in upper or lower case, as a coin falls."""
    return "".join(c.upper() if chance.random() < 0.5 else c.lower() for c in text)


def repeat(text: str, chance: random.Random) -> str:
    """One character in five occurs two to four times."""
    return "".join(
        c * chance.randint(2, MOST_TIMES) if chance.random() < REPEATED else c for c in text
    )


def upper_case(text: str, _: random.Random) -> str:
    return text.upper()


ROWS = ("qwertyuiop", "asdfghjkl", "zxcvbnm")  # of a keyboard, each half a key to the right
NEAR = {
    key: [
        *(row[x] for x in (at - 1, at + 1) if 0 <= x < len(row)),
        *(ROWS[y][x] for y, x in ((number - 1, at), (number - 1, at + 1),
                                  (number + 1, at - 1), (number + 1, at))
          if 0 <= y < len(ROWS) and 0 <= x < len(ROWS[y])),
    ]
    for number, row in enumerate(ROWS)
    for at, key in enumerate(row)
}  # fmt: skip
ALIKE = {  # what reads as what; the longer first
    "rn": "m", "cl": "d", "vv": "w", "m": "rn", "d": "cl", "w": "vv", "0": "O", "O": "0",
    "1": "l", "l": "1", "I": "l", "5": "S", "S": "5", "8": "B", "B": "8", "e": "c", "h": "b",
    "u": "v", ".": ",",
}  # fmt: skip


def keyboard(text: str, at: int) -> list[Choice]:
    """A letter, or one beside it on the keyboard."""
    letter = text[at]
    near = NEAR.get(letter.lower(), [])
    if not near:
        return [(1, letter, 1.0)]
    keys = [key.upper() for key in near] if letter.isupper() else near
    return [(1, letter, 1 - STRUCK), *((1, key, STRUCK / len(keys)) for key in keys)]


def swap(text: str, at: int) -> list[Choice]:
    """A letter, or two of them the other way round."""
    pair = text[at : at + 2]
    if len(pair) < 2 or not pair.isalpha() or pair[0] == pair[1]:
        return [(1, text[at], 1.0)]
    return [(2, pair[::-1], SWAPPED), (1, text[at], 1 - SWAPPED)]


def ocr(text: str, at: int) -> list[Choice]:
    """A character, or what it looks like."""
    for shape, other in ALIKE.items():
        if text.startswith(shape, at):
            return [(len(shape), other, MISREAD), (1, text[at], 1 - MISREAD)]
    return [(1, text[at], 1.0)]


def chosen(choices: Choices) -> Noise:
    """A noise that goes through a text and chooses what to write."""
    return Noise(partial(written, choices), partial(chosen_bits, choices))


def _none(_: str, __: str) -> float:
    return 0.0


PAPER: dict[str, Noise] = {
    "AntSpeak": Noise(ant_speak, _none, random=False),
    "Drop": Noise(drop, partial(drop_bits, share=DROPPED)),
    "RandomCase": Noise(random_case, case_bits),
    "Repeat": Noise(repeat, partial(repeat_bits, shares=TIMES)),
    "UpperCase": Noise(upper_case, _none, random=False),
}
HELD_OUT: dict[str, Noise] = {
    "Keyboard": chosen(keyboard),
    "OCR": chosen(ocr),
    "Swap": chosen(swap),
}
NOISES = PAPER  # those that the paper trains nothing on and reports


def disturb(text: bytes, noise: str | Noise, seed: int = 0) -> bytes:
    """``text`` with one of :data:`PAPER` or :data:`HELD_OUT`, or another noise."""
    way = noise if isinstance(noise, Noise) else {**PAPER, **HELD_OUT}[noise]
    return _bytes(way.disturb(_characters(text), random.Random(seed)))


def channel_bits(clean: bytes, noisy: bytes, noise: str | Noise) -> float:
    """Bits that the noise's own choices have, given the clean text: ``-log2 P(noisy | clean)``.

    Raises:
        UserError: the noise cannot make the one of the other.
    """
    way = noise if isinstance(noise, Noise) else {**PAPER, **HELD_OUT}[noise]
    return way.bits(_characters(clean), _characters(noisy))


def _characters(text: bytes) -> str:
    return text.decode("utf-8", "surrogateescape")


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")
