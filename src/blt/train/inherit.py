"""What a recipe leaves to the model that it begins from: its shape, which need not be repeated."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from blt.checkpoint.folders import CONFIG, Checkpoint
from blt.checkpoint.open import open_layout
from blt.checkpoint.pretrained import PRETRAINED, shipped
from blt.errors import require
from blt.files.configs import to_dict
from blt.files.hub import local_folder
from blt.model.config import ByteTransformerConfig, Config, TokenTransformerConfig
from blt.patching.rules import RULES, PatchingConfig

SECTIONS = {"blt": "model", "byte": "byte_model", "token": "token_model"}  # of each kind's shape
SHAPES = {"blt": Config, "byte": ByteTransformerConfig, "token": TokenTransformerConfig}
SHIPPED = {"blt": "blt", "byte": "entropy_model"}  # what "pretrained" means for a kind
TABLES = ("hash_rows", "hash_ngram_sizes")  # may differ, and are then changed


def open_init(name: str, kind: str) -> Checkpoint:
    """The model that a recipe of ``kind`` begins from; its weights are not read.

    Args:
        name: a folder, that of a run, a hub id, or "pretrained".

    Raises:
        UserError: none there, or one of another kind; says the way out.
    """
    if name == PRETRAINED:
        require(
            kind in SHIPPED,
            f"init: the package has no {kind} model; name a folder, or another kind",
        )
        with shipped(SHIPPED[kind]) as folder:
            return open_layout(folder)
    found = open_layout(init_folder(name))
    require(
        found.kind == kind,
        f"init: {name} holds a {found.kind} model, and this recipe is of kind {kind!r}; set "
        f'kind = "{found.kind}", or name another model',
    )
    return found


def init_folder(name: str) -> Path:
    """The model folder that a recipe's init means: of a run, its checkpoint."""
    inside = Path(name) / "checkpoint"
    return inside if (inside / CONFIG).is_file() else local_folder(name)


def with_shape(data: dict[str, Any]) -> dict[str, Any]:
    """The plain data of a recipe with the shape of the model that it begins from, if it does.

    A recipe that spells its shape out whole, as that in a run folder does, is left as it is: the
    other model need not be there any more.

    Raises:
        UserError: no such model, or the recipe contradicts it; names key and both values.
    """
    name, kind = data.get("init"), data.get("kind")
    if not isinstance(name, str) or kind not in SECTIONS:
        return data  # what is wrong with it comes out when it becomes a recipe
    section = data.get(SECTIONS[kind], {})
    if not isinstance(section, dict) or _is_whole(section, kind):
        return data
    shape = to_dict(open_init(name, kind).config, keep_none=False)
    refuse_contradictions(shape, section, kind, name, data)
    _refuse_foreign_threshold(shape, section, data)
    return {**data, SECTIONS[kind]: _merged(shape, section)}


def refuse_contradictions(
    shape: Mapping[str, Any],
    section: Mapping[str, Any],
    kind: str,
    name: str,
    recipe: Mapping[str, Any],
) -> None:
    """Refuse a shape that is not that of the model in ``name``.

    Args:
        shape: of the model, as plain data.
        section: what the recipe says of it, all or some.
        recipe: the recipe as plain data: what else it asks for.

    Raises:
        UserError: names the first key and both values.
    """
    if kind == "blt":
        _refuse_missing_patcher(shape, _patching(section).get("rule"), name, recipe)
    known, fields_of = flat(shape), {field.name for field in fields(SHAPES[kind])}
    for key, value in flat(section).items():
        if key.partition(".")[0] not in fields_of:
            continue  # an unknown key is refused as such
        if not _may_differ(key, recipe) and known.get(key) != value:
            found = known.get(key, "none")
            require(
                False,
                f"{SECTIONS[kind]}.{key}: is {value} here, and {found} in {name}, from which the "
                "model begins; leave it out, or begin from another model",
            )


def _refuse_missing_patcher(
    shape: Mapping[str, Any], rule: Any, name: str, recipe: Mapping[str, Any]
) -> None:
    """Entropies come from a model that the recipe names, or from that of the other model."""
    there = recipe.get("entropy_model") is not None or "entropy_model" in shape
    require(
        there or not _needs_entropies(rule),
        f"entropy_model: patching rule {rule!r} needs one, and {name} has none: a folder, or "
        "'pretrained'",
    )


def _patching(section: Mapping[str, Any]) -> Mapping[str, Any]:
    """How it cuts; nothing where no table says so, which is refused when it becomes a recipe."""
    found = section.get("patching")
    return found if isinstance(found, dict) else {}


def _needs_entropies(rule: Any) -> bool:
    """Is it a rule that cuts by an entropy model? Whatever else it is, is refused elsewhere."""
    return str(rule) in RULES and PatchingConfig(str(rule)).needs_entropies


def flat(data: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested values under dotted names."""
    found: dict[str, Any] = {}
    for key, value in data.items():
        if isinstance(value, dict):
            found.update(flat(value, f"{prefix}{key}."))
        else:
            found[prefix + key] = value
    return found


def _may_differ(key: str, recipe: Mapping[str, Any]) -> bool:
    """Is there something to be done about it, other than to train from random weights?"""
    if key == "vocab_size":
        return recipe.get("tokenizer") is not None
    if key.startswith("entropy_model."):  # the shape of the one that the recipe names
        return recipe.get("entropy_model") is not None
    return key in TABLES or key.partition(".")[0] == "patching"


def _refuse_foreign_threshold(
    shape: Mapping[str, Any], section: Mapping[str, Any], recipe: Mapping[str, Any]
) -> None:
    """A θ belongs to a rule: another rule needs its own."""
    was, now = _patching(shape), _patching(section)
    rule = now.get("rule", was.get("rule"))
    says = "threshold" in now or recipe.get("target_patch_size", 0) != 0
    require(
        rule == was.get("rule") or not _needs_entropies(rule) or says,
        f"model.patching.rule: {rule!r} needs a θ of its own, that of {was.get('rule')!r} means "
        "something else: give target_patch_size, such as 4.5, or model.patching.threshold",
    )


def _is_whole(section: Mapping[str, Any], kind: str) -> bool:
    """Does it leave nothing to another model? Parts that a model need not have do not count."""
    given = flat(section)
    parts = {field.name for field in fields(SHAPES[kind])} - {"entropy_model"}
    default = to_dict(SHAPES[kind](), keep_none=False)
    wanted = flat({name: value for name, value in default.items() if name in parts})
    return wanted.keys() <= given.keys()


def _merged(shape: Mapping[str, Any], section: Mapping[str, Any]) -> dict[str, Any]:
    """``shape`` with what ``section`` says in its place."""
    found = dict(shape)
    for key, value in section.items():
        old = found.get(key)
        if isinstance(old, dict) and isinstance(value, dict):
            found[key] = _merged(old, value)
        else:
            found[key] = value
    return found
