"""A study: families of models, their sizes, budgets, and what they are scored on.

.. code-block:: toml

    budgets = [1e12, 1e13]       # training FLOPs of each run
    seeds = [3, 1]               # runs of every family's best size and rate, at each budget
    lrs = [2e-3, 4e-3, 8e-3]     # the ladder of rates, searched for every size

    [base.data]                  # a recipe, shared by all runs
    sources = ["text.txt"]

    [heldout.books]              # kinds of text, each with its texts; never trained on
    Middlemarch = ["middlemarch.txt"]

    [ladders]                    # sizes, from small to large, for the families that name them
    patches = [["model.global_dim=64"], ["model.global_dim=96"], ["model.global_dim=128"]]

    [[families]]
    name = "BLT, space"
    group = "patches"            # the best family of each group goes on to the next budget
    recipe = { kind = "blt", model = { patching = { rule = "space" } } }
    sizes = "patches"            # or a list
"""

from __future__ import annotations

import copy
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

from blt.errors import UserError, nearest, require, require_whole
from blt.files.configs import from_dict
from blt.study.characters import Characters
from blt.study.evaluations import Evaluation
from blt.train.recipe import Recipe, override

OfBudgets = TypeVar("OfBudgets", Evaluation, Characters)  # of some budgets, or of all
OPTIONAL_PER_BUDGET = ("rate_tries", "size_tries", "climb", "changes")
MOST_SHARE = 0.5  # of a budget that the training of a patcher may take


@dataclass(frozen=True)
class PatcherModel:
    """An entropy model that is trained anew for every budget, on a share of it."""

    name: str
    recipe: dict[str, Any]  # of kind "byte", laid over the study's base
    share: float = 0.05  # of each budget; families that use it have that much less

    def __post_init__(self) -> None:
        within = 0 < self.share <= MOST_SHARE
        require(within, f"{self.name}: share must be above 0 and at most {MOST_SHARE}")


@dataclass(frozen=True)
class Family:
    """Models of one kind, in sizes from small to large."""

    name: str
    group: str  # families that are weighed against each other
    recipe: dict[str, Any]  # laid over the study's base
    sizes: tuple[tuple[str, ...], ...]  # overrides of each size, the smallest model first
    first_size: int = 1  # where the search begins at the smallest budget: an index of sizes
    patcher: str | None = None  # the entropy model that cuts its text, or teaches its table
    # A variant of another family, which it joins at a budget: its search begins there, where that
    # one's has ended.
    varies: str | None = None
    joins: float = 0.0  # the smallest budget that it is trained at
    leaves: float = math.inf  # the largest; as it does not go on, it is not weighed there
    # A variant may spend less of each budget, to be compared in equal seconds: it is of the size
    # and rate that are best for the other, which are not searched again.
    spends: float = 1.0

    def __post_init__(self) -> None:
        require(len(self.sizes) >= 1, f"{self.name}: sizes names none")
        twice = self.patcher is not None and "entropy_model" in self.recipe
        require(not twice, f"{self.name}: has a patcher and an entropy_model; name one of them")
        require(
            0 <= self.first_size < max(2, len(self.sizes)),
            f"{self.name}: first_size {self.first_size} is no index of its {len(self.sizes)} sizes",
        )
        both = (self.varies is None) == (self.joins == 0)
        require(both, f"{self.name}: varies and joins belong together; name both or neither")
        late = self.leaves == math.inf or (self.varies is not None and self.joins <= self.leaves)
        require(late, f"{self.name}: leaves is of a variant, and not below the budget it joins at")
        require(0 < self.spends <= 1, f"{self.name}: spends must be above 0 and at most 1")
        alike = self.spends == 1 or self.varies is not None
        require(alike, f"{self.name}: spends needs varies: who does the same with all of a budget")
        free = self.spends == 1 or self.patcher is None
        require(
            free, f"{self.name}: spends: not with a patcher, which is trained for all of a budget"
        )


@dataclass(frozen=True)
class Point:
    """One run of a study."""

    family: str
    budget: float  # training FLOPs, those of its patcher's training among them
    size: int  # index in the family's sizes
    lr: float
    seed: int
    recipe: Recipe  # without what only a folder knows: patcher, tokenizer
    patcher: str | None = None  # the run of its entropy model

    @property
    def name(self) -> str:
        """What differs: ``blt-entropy-6e12-size2-lr0.008-s0``."""
        what = f"{slug(self.family)}-{short(self.budget)}-size{self.size}"
        return f"{what}-lr{short(self.lr)}-s{self.seed}"


@dataclass(frozen=True)
class Study:
    """What is compared, and how it is searched.

    Raises:
        ValueError: an impossible study; names the key.
    """

    budgets: tuple[float, ...]
    seeds: tuple[int, ...]  # how many, of the best size and rate at each budget
    lrs: tuple[float, ...]  # the ladder of rates
    base: dict[str, Any]
    heldout: dict[str, dict[str, tuple[str, ...]]]  # kinds, their texts, the files of each
    families: tuple[Family, ...]
    patchers: tuple[PatcherModel, ...] = ()
    evaluations: tuple[Evaluation, ...] = ()
    characters: tuple[Characters, ...] = ()
    first_lr: int = 1  # where the search begins at the smallest budget: an index of lrs
    # What is tried at each budget; left out: 3. 3: until the best has a worse one on both sides;
    # 1: what the budget below suggests; 2: that and the next lower one.
    rate_tries: tuple[int, ...] = ()
    size_tries: tuple[int, ...] = ()
    # Steps of the sizes' ladder above the best of the budget below, where each budget's search
    # begins; left out: 0. Nothing lies below the first: 0.
    climb: tuple[int, ...] = ()
    changes: tuple[tuple[str, ...], ...] = ()  # overrides at each budget, of all families
    heldout_bytes: dict[str, int] = field(default_factory=dict)  # by kind, of each text; or all
    validation_bytes: int = 32768  # of each source's own held-out text: what searches go by
    where: str = field(default="study", compare=False)  # the file
    _points: dict[Any, Point] = field(default_factory=dict, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        budgets = len(self.budgets)
        require(budgets > 0 and bool(self.families), "name budgets and families")
        ascending = list(self.budgets) == sorted(set(self.budgets)) and self.budgets[0] > 0
        require(ascending, "budgets must be positive and ascending")
        enough = len(self.seeds) == budgets and min(self.seeds) >= 1
        require(enough, "seeds: how many runs at each budget, one number for each, at least 1")
        ladder = list(self.lrs) == sorted(set(self.lrs)) and bool(self.lrs) and self.lrs[0] > 0
        require(ladder, "lrs must be positive and ascending")
        require(0 <= self.first_lr < max(2, len(self.lrs)), "first_lr must be an index of lrs")
        for name in OPTIONAL_PER_BUDGET:
            given = getattr(self, name)
            require(len(given) in (0, budgets), f"{name}: one entry for each budget, or none")
        for name in ("rate_tries", "size_tries"):
            few = all(tries in (1, 2, 3) for tries in getattr(self, name))
            require(few, f"{name}: 1, 2 or 3 each")
        require(min(self.climb, default=0) >= 0, "climb must not be negative")
        require(not any(self.climb[:1]), "climb: nothing lies below the first budget; let it be 0")
        self._check_scored()
        self._check_names()

    def _check_scored(self) -> None:
        """There is text to search by, and some of each kind to score."""
        require_whole("validation_bytes", self.validation_bytes, 1)
        require(bool(self.heldout), "heldout: name at least one kind of text to score")
        for kind, texts in self.heldout.items():
            require(bool(texts), f"heldout.{kind}: names no text; name one, or leave the kind out")
        for kind, size in self.heldout_bytes.items():
            known = kind in self.heldout
            require(known, f"heldout_bytes.{kind}: no such kind; {nearest(kind, [*self.heldout])}")
            require_whole(f"heldout_bytes.{kind}", size, 1)

    def _check_names(self) -> None:
        named = {
            "families": [family.name for family in self.families],
            "patchers": [patcher.name for patcher in self.patchers],
            "evaluations": [one.name for one in self.evaluations],
            "characters": [one.name for one in self.characters],
        }
        for what, names in named.items():
            slugs = [slug(name) for name in names]
            for name in names:
                once = slugs.count(slug(name)) == 1
                require(once, f"{what}: two have the name {name!r}, or nearly")
        known = [patcher.name for patcher in self.patchers]
        for family in self.families:
            there = family.patcher is None or family.patcher in known
            require(there, f"{family.name}: no patcher {family.patcher!r} among {known}")
        for family in self.families:
            self._check_varies(family)
        for of in self.characters:
            self._check_named(f"characters: {of.name}", "families", of.families, of.budgets)
            for one in of.evaluations:
                self._check_named(f"characters: {of.name}: {one.name}", "beside", one.beside, ())
        for one in self.evaluations:
            self._check_named(f"evaluations: {one.name}", "beside", one.beside, one.budgets)

    def _check_varies(self, family: Family) -> None:
        if family.varies is None:
            return
        less = family.spends < 1
        same = "has its group, recipe, sizes and patcher, spends all, and is there as long"
        what = same if less else "varies nothing"
        known = [
            other.name
            for other in self.families
            if (_may_do_with_less(other, family) if less else other.varies is None)
        ]
        there, hint = family.varies in known, nearest(family.varies, known)
        require(there, f"{family.name}: varies: no {family.varies!r} that {what}; {hint}")

    def _check_named(
        self, where: str, key: str, families: Sequence[str], budgets: Sequence[float]
    ) -> None:
        known = [family.name for family in self.families]
        for name in families:
            require(name in known, f"{where}: {key}: no {name!r}; {nearest(name, known)}")
        for budget in budgets:
            there = budget in self.budgets
            require(there, f"{where}: budgets: {short(budget)} is none of the study")

    @property
    def asked(self) -> list[Evaluation]:
        """All evaluations, those around lessons among them."""
        return [*self.evaluations, *(one for of in self.characters for one in of.evaluations)]

    def family(self, name: str) -> Family:
        """The family of a name.

        Raises:
            UserError: there is none.
        """
        known = {family.name: family for family in self.families}
        require(name in known, f"{self.where}: no family {name!r}; {nearest(name, [*known])}")
        return known[name]

    def lineage(self, name: str) -> list[Family]:
        """A family, the one that it varies, and the one that this one does."""
        family = self.family(name)
        return [family] + ([] if family.varies is None else self.lineage(family.varies))

    def until(self, budget: float) -> Study:
        """The study as it would be without budgets above ``budget``.

        Raises:
            UserError: it is none of the study's budgets; names those.
        """
        if budget not in self.budgets:
            there = ", ".join(map(short, self.budgets))
            raise UserError(f"{self.where}: no budget of {short(budget)} FLOPs; there are {there}")
        count = self.budgets.index(budget) + 1
        fewer = {
            name: getattr(self, name)[:count] for name in ("budgets", "seeds", *OPTIONAL_PER_BUDGET)
        }
        fewer["evaluations"] = _asked_until(self.evaluations, budget)
        fewer["characters"] = _asked_until(self.characters, budget)
        return replace(self, **fewer)

    def tries(self, what: str, budget: float) -> int:
        """How much to try of "rate" or "size" at a budget."""
        given: tuple[int, ...] = getattr(self, f"{what}_tries")
        return given[self.budgets.index(budget)] if given else 3

    def point(self, family: Family, budget: float, size: int, lr: float, seed: int) -> Point:
        """One run."""
        key = (family.name, budget, size, lr, seed)
        if key not in self._points:
            self._points[key] = self._made(family, budget, size, lr, seed)
        return self._points[key]

    def _made(self, family: Family, budget: float, size: int, lr: float, seed: int) -> Point:
        patcher = None if family.patcher is None else self.patcher_point(family.patcher, budget)
        cuts = {} if patcher is None else {"entropy_model": patcher.name}  # it is yet to be made
        of_family, spent = {**family.recipe, **cuts}, family.spends * budget
        recipe = self._recipe(of_family, family.sizes[size], budget, lr, seed, spent)
        name = None if patcher is None else patcher.name
        return Point(family.name, budget, size, lr, seed, recipe, name)

    def patcher_point(self, name: str, budget: float) -> Point:
        """The run that trains an entropy model for a budget."""
        patcher = next(patcher for patcher in self.patchers if patcher.name == name)
        spent = patcher.share * budget
        recipe = self._recipe(patcher.recipe, (), budget, None, 0, spent)
        return Point(f"patcher {name}", spent, 0, recipe.train.lr, 0, recipe)

    def _recipe(
        self,
        of_family: dict[str, Any],
        changes: Sequence[str],
        budget: float,
        lr: float | None,
        seed: int,
        spent: float,
    ) -> Recipe:
        data = _merged(copy.deepcopy(self.base), of_family)
        at_budget = self.changes[self.budgets.index(budget)] if self.changes else ()
        for change in (*at_budget, *changes):
            override(data, change)
        train = {"flops": spent} | ({} if lr is None else {"lr": lr})
        data = _merged(data, {"seed": seed, "train": train})
        return from_dict(Recipe, data, f"{self.where}: {' '.join(changes)} at {budget:g} FLOPs")


def _may_do_with_less(family: Family, variant: Family) -> bool:
    """Can ``variant`` be the same as ``family`` with a part of each budget?"""
    what = ("group", "recipe", "sizes", "patcher")
    alike = all(getattr(family, key) == getattr(variant, key) for key in what)
    there = family.joins <= variant.joins and variant.leaves <= family.leaves
    return alike and there and family.spends == 1


def _asked_until(asked: Sequence[OfBudgets], budget: float) -> tuple[OfBudgets, ...]:
    """What is asked of models up to a budget; not named: of all."""
    kept = [replace(one, budgets=tuple(b for b in one.budgets if b <= budget)) for one in asked]
    pairs = zip(asked, kept, strict=True)
    return tuple(new for old, new in pairs if new.budgets or not old.budgets)


def slug(name: str) -> str:
    """A name for files: small letters, digits and dashes."""
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")


def short(number: float) -> str:
    """A number in six digits at most, the exponent without filling: 6e12, 0.003, 1e-5."""
    return re.sub(r"e\+?(-?)0*", r"e\1", f"{number:g}")


def _merged(base: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    """``over`` laid over ``base``, table by table."""
    for key, value in over.items():
        both = isinstance(value, dict) and isinstance(base.get(key), dict)
        base[key] = _merged(base[key], value) if both else copy.deepcopy(value)
    return base
