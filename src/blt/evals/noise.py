"""The paper's five ways to disturb a text (§6.1, table 3).

Characters are those of the text as UTF-8; bytes that are none stay as they are, each a character of
its own. The same seed and text give the same noise.
"""

from __future__ import annotations

import random
from collections.abc import Callable

DROPPED = 0.1  # share of characters that Drop leaves out
REPEATED = 0.2  # share of characters that Repeat writes several times
MOST_TIMES = 4  # that a repeated character occurs: 2 to 4 times, equally often

Noise = Callable[[str, random.Random], str]


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


NOISES: dict[str, Noise] = {
    "AntSpeak": ant_speak,
    "Drop": drop,
    "RandomCase": random_case,
    "Repeat": repeat,
    "UpperCase": upper_case,
}


def disturb(text: bytes, noise: str, seed: int = 0) -> bytes:
    """``text`` with one of :data:`NOISES`."""
    characters = text.decode("utf-8", "surrogateescape")
    return NOISES[noise](characters, random.Random(seed)).encode("utf-8", "surrogateescape")
