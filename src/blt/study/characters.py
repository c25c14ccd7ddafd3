"""Questions about characters in a study: who is taught them, at which rates, and what is kept.

For every family and budget: all rates of the ladder with the model of the first seed, looked at by
questions about words that are kept for that; then the best rate, with every seed, looked at by
questions about still other words. Everybody learns from the same questions in the same order.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal

from blt.data import read
from blt.errors import nearest, require
from blt.evals.characters import ALL_KINDS, KINDS, Words, heldout, questions, strings, words_of
from blt.lm import LanguageModel
from blt.study.evaluations import Evaluation, ask
from blt.study.finetune import Lesson, Look, finetune, until
from blt.study.lines import Line, check_same, settings_of
from blt.train.recipe import Recipe

MOST_WORDS = 4096
TEXT_BYTES = 2**24  # of texts, that words are taken from
FREE = ("name", "families", "budgets", "lrs", "seeds")  # keys that change no line
BEFORE, AFTER = "before", "after"  # the first step, and the last
Part = Literal["search", "test"]


@dataclass(frozen=True)
class Characters:
    """What the compared models are taught about the letters of words."""

    name: str = "characters"
    words: tuple[str, ...] = ()  # texts with the words to ask about; none: strings of letters
    unseen: tuple[str, ...] = ()  # texts whose words are not asked about, as those of evaluations
    kinds: tuple[str, ...] = KINDS
    families: tuple[str, ...] = ()  # none: all that are compared
    budgets: tuple[float, ...] = ()  # none: all
    lrs: tuple[float, ...] = (2e-3, 8e-3, 3.2e-2)  # the ladder, all of it tried
    seeds: int = 3  # orders of the questions, each with the next of the family's models
    steps: int = 1500
    questions: int = 32  # of a step
    every: int = 100  # steps between looks
    heldout: int = 50  # questions of each kind that it is looked at by
    goal: float = 0.9  # share of right answers
    split: float = 0.1  # token models learn once more with this share of tokens split; 0: not
    evaluations: tuple[Evaluation, ...] = ()  # asked before the first step, and after the last

    def __post_init__(self) -> None:
        for kind in self.kinds:
            known = kind in ALL_KINDS
            require(known, f"kinds: there is no {kind!r}; {nearest(kind, ALL_KINDS)}")
        for one in self.evaluations:
            require(not one.budgets, f"evaluations: {one.name}: budgets: those of the questions")
        names = [one.name for one in self.evaluations]
        require(len(set(names)) == len(names), "evaluations: give each a name of its own")
        once = bool(self.kinds) and len(set(self.kinds)) == len(self.kinds)
        require(once, "kinds: name each once, and at least one")
        ladder = list(self.lrs) == sorted(set(self.lrs)) and bool(self.lrs) and self.lrs[0] > 0
        require(ladder, "lrs must be positive and ascending")
        for key in ("seeds", "steps", "questions", "every", "heldout"):
            require(getattr(self, key) >= 1, f"{key} must be at least 1")
        require(0 < self.goal <= 1, "goal must be above 0 and at most 1")
        require(0 <= self.split <= 1, "split must lie in 0..1")

    def asks(self, family: str, budget: float) -> bool:
        """Are the models of a family taught, at a budget?"""
        named = not self.families or family in self.families
        return named and (not self.budgets or budget in self.budgets)

    @property
    def fixed(self) -> dict[str, Any]:
        """What all lines of one name must have in common."""
        return settings_of(self, FREE)


@dataclass(frozen=True)
class Model:
    """A trained model of a family; families have several."""

    run: str
    family: str
    budget: float
    recipe: Recipe


@dataclass(frozen=True)
class Turn:
    """One fine-tuning."""

    of: Characters
    model: Model
    part: Part
    split: float
    lr: float
    seed: int

    @property
    def key(self) -> Line:
        """What its line says before what was found."""
        return {
            "characters": self.of.name,
            "family": self.model.family,
            "budget": self.model.budget,
            "part": self.part,
            "split": self.split,
            "lr": self.lr,
            "seed": self.seed,
        }

    @property
    def name(self) -> str:
        """One for each: ``characters flat-2e12-size1-lr0.008-s0 test split0 lr0.004 s1``."""
        what = f"{self.of.name} {self.model.run} {self.part}"
        return f"{what} split{self.split:g} lr{self.lr:g} s{self.seed}"


def turns(of: Characters, models: Sequence[Model], lines: Sequence[Line]) -> list[Turn]:
    """Fine-tunings that can be made by now, those that are done among them.

    Raises:
        UserError: a line was made with other settings; names the key.
    """
    _check(of, lines)
    found = []
    by_family: dict[tuple[str, float], list[Model]] = {}
    for model in models:
        if of.asks(model.family, model.budget):
            by_family.setdefault((model.family, model.budget), []).append(model)
    for group in by_family.values():
        both = {0.0, of.split} if group[0].recipe.kind == "token" else {0.0}
        for split in sorted(both):
            search = [Turn(of, group[0], "search", split, lr, 0) for lr in of.lrs]
            found += search
            lr = best_rate([line for line in lines if line["name"] in {t.name for t in search}])
            if lr is not None and len(search) == _ended(search, lines):
                of_seed = [group[seed % len(group)] for seed in range(of.seeds)]
                found += [Turn(of, m, "test", split, lr, seed) for seed, m in enumerate(of_seed)]
    return found


def _ended(search: Sequence[Turn], lines: Sequence[Line]) -> int:
    names = {line["name"] for line in lines}
    return sum(turn.name in names for turn in search)


def _check(of: Characters, lines: Sequence[Line]) -> None:
    for line in lines:
        if line["characters"] == of.name:
            had = {**Characters().fixed, **line["settings"]}  # lines are older than some keys
            check_same(f"characters: {of.name}", had, of.fixed)


def best_rate(lines: Sequence[Line]) -> float | None:
    """The rate of a search that reached the goal first, or was right most often; None: no line.

    One that ended early, as all was right, counts as if it had stayed so.
    """
    most = max((len(line["looks"]) for line in lines), default=0)

    def rank(line: Line) -> tuple[float, float]:
        looks = looks_of(line)
        reached = until(looks, line["settings"]["goal"])
        steps = math.inf if reached is None else reached.step
        right = [look.mean for look in looks]
        return steps, -sum([*right, *right[-1:] * (most - len(right))]) / most

    return min(lines, key=rank)["lr"] if lines else None  # type: ignore[no-any-return]


def teach(turn: Turn, model: LanguageModel) -> Line:
    """Fine-tune a model; the line of what came out.

    Raises:
        UserError: texts that cannot be read, or too few words.
    """
    of = turn.of
    words = words_for(of.words, of.unseen)
    asked = heldout(words.search if turn.part == "search" else words.test, of.kinds, of.heldout, 1)
    learned = questions(words.train, of.kinds, turn.seed)
    lesson = Lesson(
        turn.lr, of.steps, of.questions, of.every, goal=of.goal, split=turn.split, seed=turn.seed
    )
    line: Line = {"name": turn.name, "run": turn.model.run, **turn.key, "settings": of.fixed}
    asks = of.evaluations if turn.part == "test" else ()
    before = {one.name: ask(one, model.eval()) for one in asks}
    looks = finetune(model, learned, asked, lesson, turn.model.recipe)
    line["looks"] = [look._asdict() for look in looks]
    if asks:
        after = {one.name: ask(one, model.eval()) for one in asks}
        line["asked"] = {BEFORE: before, AFTER: after}
    return line


@cache
def words_for(texts: tuple[str, ...], unseen: tuple[str, ...] = ()) -> Words:
    """The words of texts, or strings of random letters, in three parts.

    Args:
        unseen: texts whose words are none of them.
    """
    others = set(words_of(read(list(unseen)).documents, None)) if unseen else set()
    if not texts:
        return Words.divided([word for word in strings(MOST_WORDS) if word not in others])
    found = words_of(read(list(texts), TEXT_BYTES).documents, None)
    return Words.divided([word for word in found if word not in others][:MOST_WORDS])


def looks_of(line: Line) -> list[Look]:
    """What a line has found."""
    return [Look(**look) for look in line["looks"]]
