"""CUTE's questions by likelihood, for small models: the right answer among matched wrong ones.

A wrong answer is as long as the right one and comes of the same edit in another place: so many
letters left out elsewhere, others swapped. What was given is never among them. Two-way questions,
to which small models always give the same answer, are asked twice, so that this answer cancels:

* *contains*: of the same word, one letter that is in it and one that is not. The model is right if
  "Yes" rather than "No" is likelier after the question whose answer is yes.
* *orth*, *sem*: in both orders of the two words, each above how likely it is if nothing is asked.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Iterator, Sequence
from itertools import combinations

from blt.evals.choices import Question, Term, evenly
from blt.evals.cute import Item
from blt.evals.cute_prompts import prompt, without_question

WRONG = 3  # answers beside the right one, where there are so many
TRIED = 200  # places of an edit that are looked at
Make = Callable[[str, Item, Sequence[Item], random.Random, bool], Question | None]
WORDS = re.compile(r"\w+(?:['’]\w+)*|[^\w]+")
# Parts of a text, the places to edit, what is new, whether parts are words → the text.
Edit = Callable[[list[str], Sequence[int], str, bool], str]


def questions(
    task: str, items: Sequence[Item], limit: int | None = None, zero_shot: bool = False
) -> list[Question]:
    """A question for each item, but for those that no wrong answer matches.

    Args:
        task: one of :data:`blt.evals.cute_prompts.TASKS`.
        limit: so many questions, from items evenly spread.
        zero_shot: ask without CUTE's instruction and examples.
    """
    made: Make = _contains if task.startswith("contains") else _two_words
    if task not in ("contains_char", "contains_word", "orth", "sem"):
        made = _edited
    chance = random.Random(0)
    asked = (made(task, item, items, chance, zero_shot) for item in items)
    return evenly([question for question in asked if question], limit)


def _edited(
    task: str, item: Item, _: Sequence[Item], chance: random.Random, zero_shot: bool
) -> Question | None:
    wrong = matched(task, item, chance)
    if not wrong:
        return None
    order = chance.sample([item.label, *wrong], len(wrong) + 1)
    choices = [f'{choice}"'.encode() for choice in order]
    asked = prompt(task, item.inputs, zero_shot)
    return Question.plain(asked, choices, order.index(item.label))


def matched(task: str, item: Item, chance: random.Random) -> list[str]:
    """Up to three wrong answers, different ones, each as many bytes as the right one."""
    found: list[str] = []
    for text in _elsewhere(task, item, chance):
        same_size = len(text.encode()) == len(item.label.encode())
        if same_size and text not in (item.label, item.inputs[-1], *found):
            found.append(text)
        if len(found) == WRONG:
            break
    return found


def _elsewhere(task: str, item: Item, chance: random.Random) -> Iterator[str]:
    """The edit of an item in other places, in a random order."""
    if task.startswith("spell"):
        gap = " " if task == "spell" else ""
        yield from _swaps(item.label.replace(" ", ""), gap, chance)
        return
    words = task.endswith("_word")
    *given, text = item.inputs
    parts = WORDS.findall(text) if words else list(text)
    may = [n for n, part in enumerate(parts) if not words or part[0].isalnum()]
    if task.startswith("swap"):
        for pair in _some(list(combinations(may, 2)), chance):
            yield swapped(parts, pair)
        return
    wanted = given[1] if task.startswith("ins") else given[0]
    places = [n for n in may if _same(parts[n], wanted, words)]
    new = given[0] if task.startswith("ins") else given[-1]
    if EDITS[task[:3]](parts, places, new, words) != item.label:  # made by another rule
        return
    for _ in range(TRIED if len(may) > len(places) else 0):
        yield EDITS[task[:3]](parts, sorted(chance.sample(may, len(places))), new, words)


def _same(part: str, wanted: str, words: bool) -> bool:
    return part.lower() == wanted.lower() if words else part == wanted


def _insert(parts: list[str], places: Sequence[int], new: str, words: bool) -> str:
    added = f" {new}" if words else new
    return "".join(part + added * (n in places) for n, part in enumerate(parts))


def _delete(parts: list[str], places: Sequence[int], _: str, words: bool) -> str:
    """Words go with the space in front, the first one with that behind."""
    left = "".join("" if n in places else part for n, part in enumerate(parts))
    return re.sub(r" (?=[ ,.!?;:]|$)", "", left).lstrip(" ") if words else left


def _substitute(parts: list[str], places: Sequence[int], new: str, _: bool) -> str:
    return "".join(new if n in places else part for n, part in enumerate(parts))


EDITS: dict[str, Edit] = {
    "ins": _insert,
    "del": _delete,
    "sub": _substitute,
}


def swapped(parts: Sequence[str], pair: Sequence[int]) -> str:
    """The parts of a text put together, two of them in each other's place."""
    one, two = pair
    found = list(parts)
    found[one], found[two] = found[two], found[one]
    return "".join(found)


def _swaps(word: str, gap: str, chance: random.Random) -> Iterator[str]:
    """The word with two of its letters swapped."""
    for pair in _some(list(combinations(range(len(word)), 2)), chance):
        yield gap.join(swapped(word, pair))


def _some(pairs: list[tuple[int, int]], chance: random.Random) -> list[tuple[int, int]]:
    return chance.sample(pairs, min(TRIED, len(pairs)))


def _contains(
    task: str, item: Item, items: Sequence[Item], chance: random.Random, zero_shot: bool
) -> Question | None:
    """The same word with another letter, to which the answer is the other one."""
    asked, text = item.inputs
    own = WORDS.findall(text) if task == "contains_word" else list(text)
    inside = {part.lower() for part in own if part[0].isalnum()}
    outside = {other.inputs[0].lower() for other in items} - inside
    pool = sorted(outside if item.label == "Yes" else inside)
    pool = [part for part in pool if len(part) == len(asked)] or pool
    if not pool:
        return None
    other = chance.choice(pool)
    yes, no = (asked, other) if item.label == "Yes" else (other, asked)
    more = [
        Term(prompt(task, (part, text), zero_shot), answer, sign * way)
        for part, sign in ((yes, 1.0), (no, -1.0))
        for answer, way in ((b'Yes"', 1.0), (b'No"', -1.0))
    ]
    less = tuple(Term(term.prompt, term.continuation, -term.weight) for term in more)
    return Question((tuple(more), less), 0)


def _two_words(
    task: str, item: Item, _: Sequence[Item], __: random.Random, zero_shot: bool
) -> Question | None:
    """Both words in both orders, above what each is worth without a question."""
    word, *pair = item.inputs
    if item.label not in pair or pair[0] == pair[1]:
        return None
    prompts = [prompt(task, (word, *order), zero_shot) for order in (pair, pair[::-1])]
    options = []
    for choice in pair:
        end = f'{choice}"'.encode()
        after = [Term(asked, end, 0.5) for asked in prompts]
        options.append((*after, Term(without_question(task, zero_shot), end, -1.0)))
    return Question(tuple(options), pair.index(item.label))
