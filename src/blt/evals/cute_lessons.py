"""CUTE's questions made anew from a seed, about other words: to teach a model what CUTE asks.

*orth* and *sem* are left out: which words are near in meaning is nothing that can be made up.
"""

from __future__ import annotations

import random
import string
from collections.abc import Sequence

from blt.evals.cute import Item
from blt.evals.cute_pairs import EDITS, WORDS, swapped
from blt.evals.cute_prompts import TASKS

LESSONS = tuple(task for task in TASKS if task not in ("orth", "sem"))
SENTENCE = (4, 6)  # words of a made-up sentence, least and most


def lesson(task: str, words: Sequence[str], chance: random.Random) -> Item:
    """A question of one of the :data:`LESSONS`, and its answer.

    Args:
        words: to ask about, more than those of one sentence; sentences are some in any order.
    """
    if task.startswith("spell"):
        word = chance.choice(words)
        spelled = " ".join(word)
        return Item((word,), spelled) if task == "spell" else Item((spelled,), word)
    by_word = task.endswith("_word")
    text = " ".join(chance.sample(words, chance.randint(*SENTENCE) if by_word else 1))
    parts = WORDS.findall(text) if by_word else list(text)
    own = sorted({part for part in parts if part.isalpha()})
    other = own[0]
    while other in own:
        other = chance.choice(words if by_word else string.ascii_lowercase)
    part = chance.choice(own)
    if task.startswith("contains"):
        yes = chance.random() < 0.5
        return Item((part if yes else other, text), "Yes" if yes else "No")
    if task.startswith("swap"):
        return _swap(text, parts, chance) or lesson(task, words, chance)
    inputs = {"ins": (other, part), "del": (part,), "sub": (part, other)}[task[:3]]
    places = [n for n, one in enumerate(parts) if one == part]
    return Item((*inputs, text), EDITS[task[:3]](parts, places, other, by_word))


def _swap(text: str, parts: Sequence[str], chance: random.Random) -> Item | None:
    """Two parts that occur once change places; None: there are no two, as in "noon"."""
    once = [n for n, part in enumerate(parts) if part.isalpha() and parts.count(part) == 1]
    if len(once) < 2:
        return None
    pair = chance.sample(once, 2)
    return Item((parts[pair[0]], parts[pair[1]], text), swapped(parts, pair))
