"""Recipes: one TOML file describes one experiment, whole."""

from __future__ import annotations

import math
import os
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import tomli_w

from blt.errors import UserError, named, require
from blt.files import durable
from blt.files.configs import from_dict, to_dict
from blt.model.config import ByteTransformerConfig, Config, TokenTransformerConfig
from blt.train.inherit import SECTIONS, flat, with_shape
from blt.train.sections import (
    MOST_SEED,
    ByteifyConfig,
    DataConfig,
    LoraConfig,
    RoutingConfig,
    TrainConfig,
)

PATCH_SIZE = 4.5  # bytes, where a recipe says nothing


@dataclass(frozen=True)
class Recipe:
    """One experiment: a BLT, a byte transformer (an entropy model, or a flat baseline), or a
    transformer over tokens."""

    kind: Literal["blt", "byte", "token"]
    data: DataConfig
    train: TrainConfig
    seed: int = 0
    model: Config | None = None  # of kind "blt"; its entropy_model is replaced by the one loaded
    byte_model: ByteTransformerConfig | None = None  # of kind "byte"
    token_model: TokenTransformerConfig | None = None  # of kind "token"
    tokenizer: str | None = None  # of kind "token": a tokenizer.json; none: one is trained
    # Of kind "blt": a trained model's folder, or "pretrained"; none: rules that need none, and
    # "lookup" then learns its table from counts of bytes.
    entropy_model: str | None = None
    byteify: ByteifyConfig | None = None  # of kind "blt", whose global transformer it shapes
    lora: LoraConfig | None = None  # of any kind
    routing: RoutingConfig | None = None  # of kind "blt" with the patching rule "learned"
    # bytes; θ is calibrated to it, or a router trained to it; 0 keeps the threshold that is there,
    # or, of a table that byteify's source teaches, gives patches as long as the source's tokens.
    # None given: 4.5, or with init 0
    target_patch_size: float = math.nan
    # A model to begin from, whose shape this is: a folder, a run's, a hub id, or "pretrained"
    init: str | None = None

    def __post_init__(self) -> None:
        self._refuse_others()
        if math.isnan(self.target_patch_size):
            size = PATCH_SIZE if self.init is None else 0.0
            object.__setattr__(self, "target_patch_size", size)
        if self.init is not None and getattr(self, SECTIONS[self.kind]) is None:
            self._check_sizes()  # the shape comes when the training begins
        elif self.kind == "byte":
            object.__setattr__(self, "byte_model", self.byte_model or ByteTransformerConfig())
        elif self.kind == "token":
            object.__setattr__(self, "token_model", self.token_model or TokenTransformerConfig())
        else:
            model = self.model or Config()
            cuts_without = self.entropy_model is None and not model.patching.needs_entropies
            if cuts_without or model.patching.rule == "lookup":
                model = replace(model, entropy_model=None)
            object.__setattr__(self, "model", model)
            self._check_routing(model)
            has_one = self.entropy_model is not None or self.init is not None
            require(
                has_one or not model.patching.needs_entropies,
                f"entropy_model: patching rule {model.patching.rule!r} needs one: a folder, or "
                "'pretrained'",
            )
            require(
                self.target_patch_size > 0
                or self.init is not None
                or self.byteify is not None
                or not self.learns_table,
                "target_patch_size: a table is learned to cut patches of that size; give 1 or more",
            )
        self._check_sizes()

    def _check_sizes(self) -> None:
        require(
            self.target_patch_size == 0 or self.target_patch_size >= 1,
            f"target_patch_size must be at least 1 byte, or 0, got {self.target_patch_size}",
        )
        within = 0 <= self.seed <= MOST_SEED
        require(within, f"seed must lie in 0..2^63 - 1, got {self.seed}")
        require(
            self.train.steps != 0 or self.init is not None,
            "train.steps must be positive, got 0; only with init may a training take no step",
        )
        require(
            self.train.epochs is None or not self.data.weights,
            "train.epochs: sources with data.weights end at different times; give train.bytes",
        )

    @property
    def learns_table(self) -> bool:
        """Is a lookup table learned when training begins: from the entropy model, or by counts?"""
        is_looked_up = self.model is not None and self.model.patching.rule == "lookup"
        return is_looked_up and (self.init is None or self.target_patch_size > 0)

    def _check_routing(self, model: Config) -> None:
        """What shapes a router is there exactly where there is one."""
        if not model.patching.is_learned:
            rule = model.patching.rule
            require(self.routing is None, f"routing: only for rule 'learned', this is {rule!r}")
            return
        object.__setattr__(self, "routing", self.routing or RoutingConfig())
        size = self.target_patch_size
        require(size > 1, f"target_patch_size must be above 1 byte for a router, got {size}")

    def _refuse_others(self) -> None:
        """Keys that belong to another kind of model."""
        owners = {
            "model": "blt",
            "entropy_model": "blt",
            "byteify": "blt",
            "routing": "blt",
            "byte_model": "byte",
            "token_model": "token",
            "tokenizer": "token",
        }
        for name, kind in owners.items():
            fits = getattr(self, name) is None or self.kind == kind
            require(fits, f"{name}: only for kind {kind!r}, this is {self.kind!r}")
        require(
            self.init is None or self.byteify is None,
            "init: the section byteify begins from a model of its own; leave out one of the two",
        )
        require(
            self.train.stale_patches == 0 or self.kind == "blt",
            f"train.stale_patches: only for kind 'blt', this is {self.kind!r}",
        )
        learned = self.model is not None and self.model.patching.is_learned
        require(
            self.train.stale_patches == 0 or not learned,
            "train.stale_patches: not with the patching rule 'learned', which cannot draft",
        )


def read_recipe(path: str | os.PathLike[str], overrides: Sequence[str] = ()) -> Recipe:
    """Read a recipe.

    Args:
        path: TOML file.
        overrides: ``dotted.name=value`` with a TOML value; a string needs no quotes.

    Raises:
        UserError: missing or damaged file, unknown key, wrong type, impossible value or shape, or
            one that contradicts the model that it begins from; names file and key.
    """
    try:
        data = tomllib.loads(Path(path).read_bytes().decode())
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise UserError(f"{path}: not valid TOML ({error})") from None
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}; name a recipe (recipes/*.toml)") from None
    for change in overrides:
        override(data, change)
    where = " with ".join((str(path), *overrides))
    with named(where):
        data = with_shape(data)
    return from_dict(Recipe, data, where)


def write_recipe(path: str | os.PathLike[str], recipe: Recipe) -> None:
    """Write ``recipe`` with every default spelled out; the file appears whole."""
    durable.write_text(Path(path), tomli_w.dumps(to_dict(recipe, keep_none=False)))


def differences(old: Recipe, new: Recipe) -> list[str]:
    """Dotted names of what differs between two recipes."""
    a, b = (values(recipe) for recipe in (old, new))
    return sorted(name for name in a.keys() | b.keys() if a.get(name) != b.get(name))


def values(recipe: Recipe) -> dict[str, Any]:
    """All values of a recipe by their dotted names; those that are None are left out."""
    return flat(to_dict(recipe, keep_none=False))


def override(data: dict[str, Any], change: str) -> None:
    """Set one dotted name: ``change`` is as of :func:`read_recipe`."""
    name, equals, text = change.partition("=")
    *sections, key = name.strip().split(".")
    if not equals or not key or not all(sections):
        raise UserError(f"{change}: an override looks like section.key=value")
    for section in sections:
        data = data.setdefault(section, {})
        if not isinstance(data, dict):
            raise UserError(f"{change}: {section!r} is a value, not a section")
    try:
        data[key] = tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        data[key] = text.strip()  # a string whose quotes the shell took
