"""Questions about the letters of words, each with one short answer; made anew from a seed.

Of four words, as in the language game of StochasTok (arXiv 2506.01687), and of one, as in "how many
r are in strawberry". A question is a line of text: its prompt, then a space and the answer. And in
the words of CUTE, whose answer ends with a quote.
"""

from __future__ import annotations

import random
import re
import string
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import cycle

from blt.errors import UserError, nearest, require
from blt.evals.cute_lessons import LESSONS, lesson
from blt.evals.cute_prompts import prompt as cute_prompt

OPTIONS = 4  # words to choose from
LETTERS = (4, 9)  # of a word, least and most
MOST_COUNTED = 3  # of one letter in a word
TRIES = 1000  # at a question that has one answer
LEAST_WORDS = 200  # of which parts of 8 : 1 : 1 are made
END = b"\n"  # of an answer


@dataclass(frozen=True)
class Question:
    """A prompt, and what must follow it."""

    kind: str
    prompt: bytes
    answer: bytes  # the space before it, or the quote behind, and the end of the line belong to it


@dataclass(frozen=True)
class Words:
    """Words in three parts that have none in common."""

    train: list[str]
    search: list[str]  # what a search goes by
    test: list[str]

    @classmethod
    def divided(cls, words: Sequence[str], seed: int = 0) -> Words:
        """Eight tenths to train on, and a tenth for each of the others.

        Raises:
            UserError: too few words.
        """
        words = sorted(set(words))
        enough = len(words) >= LEAST_WORDS
        require(enough, f"{len(words)} different words of {LETTERS} letters, not {LEAST_WORDS}")
        random.Random(seed).shuffle(words)
        tenth = len(words) // 10
        return cls(words[2 * tenth :], words[:tenth], words[tenth : 2 * tenth])


def words_of(texts: Iterable[bytes], most: int | None) -> list[str]:
    """The most frequent words of texts (None: all), in small letters, of 4 to 9 letters."""
    counts: Counter[str] = Counter()
    for text in texts:
        counts.update(re.findall(r"[^\W\d_]+", text.decode("utf-8", "ignore").lower()))
    least, longest = LETTERS
    fitting = {word: count for word, count in counts.items() if least <= len(word) <= longest}
    return sorted(fitting, key=lambda word: (-fitting[word], word))[:most]


def strings(count: int, seed: int = 0) -> list[str]:
    """Different strings of 4 to 9 random letters, which are no words."""
    chance, found = random.Random(seed), dict[str, None]()
    while len(found) < count:
        found["".join(chance.choices(string.ascii_lowercase, k=chance.randint(*LETTERS)))] = None
    return list(found)


def questions(words: Sequence[str], kinds: Sequence[str], seed: int) -> Iterator[Question]:
    """Questions without end, of one kind after the other.

    Raises:
        UserError: an unknown kind, or words that are too much alike to be asked about.
    """
    chance, pool = random.Random(seed), _Pool(words)
    for kind in kinds:
        require(kind in ALL_KINDS, f"no kind of question {kind!r}; {nearest(kind, ALL_KINDS)}")
    for kind in cycle(kinds):
        if kind in OF_CUTE:
            item = lesson(OF_CUTE[kind], words, chance)
            asked = cute_prompt(OF_CUTE[kind], item.inputs, zero_shot=True)
            yield Question(kind, asked, f'{item.label}"'.encode() + END)
        else:
            prompt, answer = pool.ask(kind, chance)
            yield Question(kind, prompt.encode(), f" {answer}".encode() + END)


def heldout(words: Sequence[str], kinds: Sequence[str], each: int, seed: int) -> list[Question]:
    """So many different questions of each kind.

    Raises:
        UserError: as of :func:`questions`; or the words do not give so many.
    """
    found: list[Question] = []
    for kind in kinds:
        different: dict[bytes, Question] = {}
        endless = questions(words, [kind], seed)
        for _ in range(TRIES + each):
            question = next(endless)
            different[question.prompt] = question
            if len(different) == each:
                break
        else:
            raise UserError(f"{len(words)} words do not give {each} questions {kind!r}; name more")
        found += different.values()
    return found


Part = Callable[[str, random.Random], str]  # of a word: what the others are asked for
Rank = Callable[[str, str], int]  # a word and that part: the highest is the answer


@dataclass(frozen=True)
class _Choice:
    """Which of four words?"""

    wording: str
    part: Part
    rank: Rank
    second: int | None = None  # what another word must rank at least, to be a temptation


CHOICES = {
    "most": _Choice("Which has the most {}", lambda w, c: c.choice(w), lambda w, p: w.count(p), 1),
    "contains": _Choice("Which contains {}", lambda w, c: _pair(w, c), lambda w, p: p in w),
    "starts": _Choice("Which starts with {}", lambda w, c: w[:2], lambda w, p: w.startswith(p)),
    "ends": _Choice("Which ends with {}", lambda w, c: w[-2:], lambda w, p: w.endswith(p)),
    "longest": _Choice("Which is the longest", lambda w, c: "", lambda w, p: len(w)),
    "shortest": _Choice("Which is the shortest", lambda w, c: "", lambda w, p: -len(w)),
}
# The word is the last that is read, so that its last letter is always at the same distance.
ABOUT: dict[str, tuple[str, Callable[[str], str]]] = {
    "first": ("Which is the first letter of {}?", lambda word: word[0]),
    "third": ("Which is the third letter of {}?", lambda word: word[2]),
    "last": ("Which is the last letter of {}?", lambda word: word[-1]),
    "spell": ("Spell {}:", " ".join),
    "reverse": ("Backwards, spell {}:", lambda word: " ".join(reversed(word))),
}
COUNT = "count"
KINDS = (*CHOICES, COUNT, *ABOUT)
OF_CUTE = {f"CUTE {task}": task for task in LESSONS}
ALL_KINDS = (*KINDS, *OF_CUTE)


class _Pool:
    """Words that are asked about."""

    def __init__(self, words: Sequence[str]) -> None:
        self.words = list(words)
        # Each count is asked for as often, though most letters occur once in a word, or not.
        self.by_count: dict[int, list[tuple[str, str]]] = {}
        letters = sorted(set("".join(self.words)))
        for word in self.words:
            for letter in letters:
                if (times := word.count(letter)) <= MOST_COUNTED:
                    self.by_count.setdefault(times, []).append((word, letter))

    def ask(self, kind: str, chance: random.Random) -> tuple[str, str]:
        """A prompt and its answer."""
        if kind == COUNT:
            times = chance.choice(sorted(self.by_count))
            word, letter = chance.choice(self.by_count[times])
            return f"In {word}, how many {letter}?", str(times)
        if kind in ABOUT:
            wording, answer = ABOUT[kind]
            word = chance.choice(self.words)
            return wording.format(word), answer(word)
        return self._choose(kind, chance)

    def _choose(self, kind: str, chance: random.Random) -> tuple[str, str]:
        """Four words, of which just one is right."""
        choice = CHOICES[kind]
        for _ in range(TRIES):
            words = chance.sample(self.words, OPTIONS)
            part = choice.part(chance.choice(words), chance)
            ranks = [choice.rank(word, part) for word in words]
            second, best = sorted(ranks)[-2:]
            if second < best and (choice.second is None or second >= choice.second):
                asked = f"{choice.wording.format(part)}: {', '.join(words)}?"
                return asked, words[ranks.index(best)]
        raise UserError(f"the words are too much alike for questions {kind!r}; name other texts")


def _pair(word: str, chance: random.Random) -> str:
    at = chance.randrange(len(word) - 1)
    return word[at : at + 2]
