"""Ways to disturb a text, each of which says what it leaves as it was.

The paper's five (§6.1, table 3), and others. Characters are those of the text as UTF-8; bytes that
are none stay as they are, each a character of its own.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np

DROPPED = 0.1  # share of characters that Drop leaves out
REPEATED = 0.2  # share of characters that Repeat writes several times
MOST_TIMES = 4  # that a repeated character occurs: 2 to 4 times, equally often
STRUCK = 0.05  # share of letters that Keyboard replaces by the key beside it
SWAPPED = 0.05  # share of pairs of letters that Swap turns round
MISREAD = 0.1  # share of what looks alike that OCR takes for each other

# What a noise writes, part by part, and whether each part is what the clean text has there.
Written = list[tuple[str, bool]]
Disturb = Callable[[str, random.Random], Written]
# What may be written for the characters at a place: how many are taken, the text, the probability.
Choice = tuple[int, str, float]
Choices = Callable[[str, int], list[Choice]]


@dataclass(frozen=True)
class Noised:
    """A disturbed text."""

    data: bytes
    clean: np.ndarray  # [bytes] bool: which are as they were; not those changed, moved or put in


def noised(text: bytes, disturb: Disturb, chance: random.Random) -> Noised:
    """What a noise makes of a text, and which of its bytes are as they were."""
    parts = [(to_bytes(part), clean) for part, clean in disturb(characters(text), chance)]
    sizes = [len(part) for part, _ in parts]
    clean = np.repeat(np.array([clean for _, clean in parts], dtype=bool), sizes)
    return Noised(b"".join(part for part, _ in parts), clean)


def characters(text: bytes) -> str:
    return text.decode("utf-8", "surrogateescape")


def to_bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")


def ant_speak(text: str, _: random.Random) -> Written:
    """Upper case, with a space between all characters."""
    parts = [
        part for c in text for upper in c.upper() for part in ((" ", False), (upper, upper == c))
    ]
    return parts[1:]


def drop(text: str, chance: random.Random) -> Written:
    """One character in ten is missing."""
    return [(c, True) for c in text if chance.random() >= DROPPED]


def random_case(text: str, chance: random.Random) -> Written:
    """Each character in upper or lower case, as a coin falls."""
    return [_as(c.upper() if chance.random() < 0.5 else c.lower(), c) for c in text]


def repeat(text: str, chance: random.Random) -> Written:
    """One character in five occurs two to four times, the first time as it was."""
    parts: Written = []
    for c in text:
        parts.append((c, True))
        if chance.random() < REPEATED:
            parts.append((c * (chance.randint(2, MOST_TIMES) - 1), False))
    return parts


def upper_case(text: str, _: random.Random) -> Written:
    return [_as(c.upper(), c) for c in text]


def _as(new: str, old: str) -> tuple[str, bool]:
    return new, new == old


def written(choices: Choices, text: str, chance: random.Random) -> Written:
    """What a noise of choices makes of a text, from its start to its end."""
    parts: Written = []
    at = 0
    while at < len(text):
        options = choices(text, at)
        weights = [probability for _, _, probability in options]
        taken, out, _ = options[0] if len(options) == 1 else chance.choices(options, weights)[0]
        parts.append(_as(out, text[at : at + taken]))
        at += taken
    return parts


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


PAPER: dict[str, Disturb] = {
    "AntSpeak": ant_speak,
    "Drop": drop,
    "RandomCase": random_case,
    "Repeat": repeat,
    "UpperCase": upper_case,
}
CHOICES: dict[str, Choices] = {"Keyboard": keyboard, "OCR": ocr, "Swap": swap}
NOISES: dict[str, Disturb] = {
    **PAPER,
    **{name: partial(written, choices) for name, choices in CHOICES.items()},
}
