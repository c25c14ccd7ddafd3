"""A study: families of models, budgets, seeds, and what they are scored on.

.. code-block:: toml

    budgets = [1e12, 1e13]       # training FLOPs of each run
    seeds = [3, 1]               # runs of every family at each budget
    lrs = [2e-3, 4e-3]           # tried for every family at the smallest budget

    [base.data]                  # a recipe, shared by all runs
    sources = ["text.txt"]

    [heldout]                    # kinds of text to score, never trained on
    books = ["books/*.txt"]

    [[families]]
    name = "BLT, entropy"
    recipe = { kind = "blt", entropy_model = "pretrained" }
    sizes = [["model.global_dim=64"], ["model.global_dim=128"]]  # one list for each budget
"""

from __future__ import annotations

import copy
import os
import re
import tomllib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from blt.errors import UserError, require
from blt.files.configs import from_dict
from blt.train.recipe import Recipe, override


@dataclass(frozen=True)
class Family:
    """Models of one kind, of a size for each budget."""

    name: str
    recipe: dict[str, Any]  # laid over the study's base
    sizes: tuple[tuple[str, ...], ...]  # overrides, for each budget; fewer: not at the largest
    # Tried at each budget beside the study's lrs; what is found holds until the next with any.
    lrs: tuple[tuple[float, ...], ...] = ()


@dataclass(frozen=True)
class Point:
    """One run of a study."""

    family: str
    budget: float  # training FLOPs
    seed: int
    recipe: Recipe

    @property
    def name(self) -> str:
        """Its family, budget, learning rate and seed: ``blt-entropy-6e12-lr0.003-s0``."""
        family = re.sub(r"[^a-z0-9]+", "-", self.family.lower()).strip("-")
        lr = self.recipe.train.lr
        return f"{family}-{_short(self.budget)}-lr{_short(lr)}-s{self.seed}"

    def with_lr(self, lr: float | None) -> Point:
        """With another learning rate; None: the recipe's."""
        train = replace(self.recipe.train, lr=lr or self.recipe.train.lr)
        return replace(self, recipe=replace(self.recipe, train=train))


@dataclass(frozen=True)
class Study:
    """A grid of trainings.

    Raises:
        ValueError: an impossible grid; names the key.
    """

    budgets: tuple[float, ...]
    seeds: tuple[int, ...]
    base: dict[str, Any]
    heldout: dict[str, tuple[str, ...]]
    families: tuple[Family, ...]
    lrs: tuple[float, ...] = ()  # tried for every family at the smallest budget
    heldout_bytes: int = 262144  # of each kind
    where: str = field(default="study", compare=False)  # the file

    def __post_init__(self) -> None:
        require(bool(self.budgets) and bool(self.families), "name budgets and families")
        require(
            list(self.budgets) == sorted(set(self.budgets)) and self.budgets[0] > 0,
            "budgets must be positive and ascending",
        )
        require(
            len(self.seeds) == len(self.budgets) and min(self.seeds) >= 1,
            "seeds: how many runs at each budget, one number for each, at least 1",
        )
        require(bool(self.heldout), "heldout: name at least one kind of text to score")
        names = [family.name for family in self.families]
        for name in names:
            require(names.count(name) == 1, f"families: two have the name {name!r}")
        for family in self.families:
            require(
                1 <= len(family.sizes) <= len(self.budgets),
                f"{family.name}: sizes must have a list of overrides for each budget, or for the "
                "smallest ones",
            )
            require(
                len(family.lrs) <= len(family.sizes),
                f"{family.name}: lrs has more lists than sizes has",
            )
            for index in range(len(family.sizes)):
                lrs = self._lrs(family, index)
                require(
                    len(set(lrs)) == len(lrs) and all(lr > 0 for lr in lrs),
                    f"{family.name}: lrs must be positive and different, got {lrs}",
                )

    def search(self) -> Iterator[Point]:
        """Runs that try learning rates, the cheap ones first."""
        for index, budget in enumerate(self.budgets):
            for family in self.families:
                for lr in self._lrs(family, index):
                    yield self._point(family, index, budget, 0).with_lr(lr)

    def _lrs(self, family: Family, index: int) -> tuple[float, ...]:
        """Learning rates to try with a family at a budget."""
        of_family = family.lrs[index] if index < len(family.lrs) else ()
        return (*self.lrs, *of_family) if index == 0 else of_family

    def points(self) -> Iterator[Point]:
        """What is compared, with the recipes' learning rates; the cheap runs first."""
        for index, budget in enumerate(self.budgets):
            for seed in range(self.seeds[index]):
                for family in self.families:
                    if index < len(family.sizes):
                        yield self._point(family, index, budget, seed)

    def _point(self, family: Family, index: int, budget: float, seed: int) -> Point:
        data = _merged(copy.deepcopy(self.base), family.recipe)
        for change in family.sizes[index]:
            override(data, change)
        data = _merged(data, {"seed": seed, "train": {"flops": budget}})
        where = f"{self.where}: {family.name} at {budget:g} FLOPs"
        return Point(family.name, budget, seed, from_dict(Recipe, data, where))


def read_study(path: str | os.PathLike[str], changes: Sequence[str] = ()) -> Study:
    """Read a study; every recipe in it is checked.

    Args:
        changes: to the recipe that all runs share, such as ``train.device="cuda"``.

    Raises:
        UserError: missing or damaged file, unknown key, impossible value; names file and key.
    """
    try:
        data = tomllib.loads(Path(path).read_bytes().decode())
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise UserError(f"{path}: not valid TOML ({error})") from None
    for change in changes:
        override(data.setdefault("base", {}), change)
    study = from_dict(Study, {**data, "where": str(path)}, str(path))
    for point in study.search():
        require(
            point.recipe.train.evals > 0, f"{path}: lrs are judged by train.evals; 0 is too few"
        )
    for points in (study.search(), study.points()):
        names = [point.name for point in points]
        for name in names:
            twice = f"{path}: two runs would be called {name}; rename a family"
            require(names.count(name) == 1, twice)
    return study


def _short(number: float) -> str:
    """A number in six digits at most, the exponent without filling: 6e12, 0.003, 1e-5."""
    return re.sub(r"e\+?(-?)0*", r"e\1", f"{number:g}")


def _merged(base: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    """``over`` laid over ``base``, table by table."""
    for key, value in over.items():
        both = isinstance(value, dict) and isinstance(base.get(key), dict)
        base[key] = _merged(base[key], value) if both else copy.deepcopy(value)
    return base
