"""Reads the file of a study, and the ladders and questions that it shares with others."""

from __future__ import annotations

import math
import os
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from blt.errors import UserError, require
from blt.files.configs import from_dict
from blt.study.config import Study, short
from blt.train.recipe import Recipe, override
from blt.train.sections import DataConfig

TEXT = ("sources", "weights", "heldout", "max_bytes", "learn", "max_broken")  # the text, of data


def read_study(
    path: str | os.PathLike[str],
    changes: Sequence[str] = (),
    characters: str | os.PathLike[str] | None = None,
) -> Study:
    """Read a study; the recipe of every size and budget is checked.

    Args:
        changes: to the recipe that all runs share, such as ``train.device="cuda"``.
        characters: a file whose ``[[characters]]`` stand for those of the study.

    Raises:
        UserError: missing or damaged file, unknown key, impossible value, a recipe with a text of
            its own; names file and key.
    """
    data = _read(path, "a study (recipes/study/*.toml)")
    if characters is not None:
        other = _read(characters, "a file with [[characters]]")
        alone = other.keys() == {"characters"}
        require(alone, f"{characters}: must have [[characters]], and nothing else")
        data |= other
    for change in changes:
        override(data.setdefault("base", {}), change)
    _lay_ladders(data, str(path))
    study = from_dict(Study, {**data, "where": str(path)}, str(path))
    for family in study.families:
        ends = ("joins", family.joins, 0.0), ("leaves", family.leaves, math.inf)
        for key, budget, unnamed in ends:
            there = budget in (unnamed, *study.budgets)
            require(there, f"{path}: {family.name}: {key} {budget:g} is none of the budgets")
    text = from_dict(DataConfig, study.base.get("data", {}), f"{path}: base.data")
    for budget in study.budgets:
        at = f"at {short(budget)} FLOPs"
        for patcher in study.patchers:
            recipe = study.patcher_point(patcher.name, budget).recipe
            here = f"{path}: patcher {patcher.name}"
            require(recipe.kind == "byte", f"{here}: its kind must be 'byte'")
            _check_text(recipe, text, f"{here} {at}")
        for family in study.families:
            for size in range(len(family.sizes)):
                recipe = study.point(family, budget, size, study.lrs[0], 0).recipe
                _check_text(recipe, text, f"{path}: {family.name} {at}")
    return study


def _check_text(recipe: Recipe, text: DataConfig, where: str) -> None:
    """Models are compared, and searched for, on one text.

    Raises:
        UserError: a recipe has another one than the base; names the key.
    """
    for key in TEXT:
        same = getattr(recipe.data, key) == getattr(text, key)
        way_out = "all runs of a study read the same text: change it in base.data"
        require(same, f"{where}: has another data.{key} than base.data; {way_out}")


def _read(path: str | os.PathLike[str], what: str) -> dict[str, Any]:
    try:
        return tomllib.loads(Path(path).read_bytes().decode())
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise UserError(f"{path}: not valid TOML ({error})") from None
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}; name {what}") from None


def _lay_ladders(data: dict[str, Any], where: str) -> None:
    """Families of one kind may share their sizes, by the name of a ladder."""
    ladders = data.pop("ladders", {})
    for family in data.get("families", ()):
        name = family.get("sizes") if isinstance(family, dict) else None
        if isinstance(name, str):
            known = isinstance(ladders, dict) and name in ladders
            if not known:
                raise UserError(f"{where}: families: sizes: no ladder {name!r} in [ladders]")
            family["sizes"] = ladders[name]
