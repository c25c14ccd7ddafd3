"""Our own layout: config.json with "format": "blt-1", and weights under our names, in floats or in
int8 with scales."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from blt.checkpoint.folders import (
    CONFIG,
    FORMAT,
    INIT,
    PATCHING,
    TOKENIZER,
    Checkpoint,
    check,
    check_layers,
    skeleton,
)
from blt.errors import UserError, require
from blt.files.configs import from_dict, to_dict
from blt.files.int8 import Dequantised
from blt.files.stored import WITH_INT8, Stored
from blt.files.strict_json import read_object
from blt.files.tensors import Tensors
from blt.model.config import Config, TokenTransformerConfig
from blt.model.language import KINDS

# an entropy model that other layouts can hold, also where the package's has tables
WITHOUT_TABLES = (
    ", or train one over an entropy model without tables: blt train recipes/entropy-laptop.toml "
    "--run runs/entropy, then entropy_model=runs/entropy/checkpoint in the BLT's recipe"
)


def open_folder(folder: Path, data: dict[str, Any]) -> Checkpoint:
    """The model in a folder with this config.

    Raises:
        UserError: a config or weights that do not belong together.
    """
    kind, known = data.get("kind"), KINDS
    if not isinstance(kind, str) or kind not in known:
        raise UserError(f"{folder}/{CONFIG}: unknown kind {kind!r}; known: {', '.join(known)}")
    shape = data.get("model", {})
    require(isinstance(shape, dict), f"{folder}/{CONFIG}: model must be an object, got {shape!r}")
    config = from_dict(known[kind][1], shape, f"{folder}/{CONFIG}: model")
    tensors = Dequantised(Stored(folder, WITH_INT8))
    check_against(str(folder), kind, config, tensors)
    others = (folder / name for name in (PATCHING, TOKENIZER, INIT))
    files = {path.name: read_object(path) for path in others if path.is_file()}
    return Checkpoint(str(folder), kind, config, tensors, files)


def check_against(where: str, kind: str, config: Any, tensors: Tensors) -> None:
    """Are these the tensors, under our names, of a model with this config?

    Raises:
        UserError: missing, unknown or wrongly shaped tensors.
    """
    check_layers(where, tensors, *layers_of(config))
    check(where, tensors, skeleton(KINDS[kind][0], config, where).state_dict())


def refuse_tables(config: Any, where: str, layout: str) -> None:
    """Refuse tables of n-grams that only our layout has: those of a transformer without patches,
    and hashes that do not see all.

    Raises:
        UserError: names the option.
    """
    flat = config.entropy_model if isinstance(config, Config) else config
    token = isinstance(config, TokenTransformerConfig)
    require(
        flat is None or not flat.hash_ngram_sizes,
        f"{where}: the layout {layout!r} has no hash n-gram tables (hash_ngram_sizes) of a "
        f"{'token' if token else 'byte'} transformer; keep it in ours, --to blt"
        f"{WITHOUT_TABLES if flat is not config else ''}",
    )
    for name in ("hash_fold", "hash_gate"):
        require(
            not getattr(config, name),
            f"{where}: the layout {layout!r} has no {name}; keep the model in ours, --to blt",
        )


def layers_of(config: Any) -> list[int]:
    """How many layers each part of a model has."""
    parts = (config, getattr(config, "entropy_model", None))
    return [
        value for part in parts if part for name, value in vars(part).items() if "layers" in name
    ]


def layout(found: Checkpoint) -> dict[str, tuple[dict[str, Any], Tensors]]:
    """JSON files and tensors to write, by subfolder."""
    config = {"format": FORMAT, "kind": found.kind, "model": to_dict(found.config)}
    tensors = found.tensors
    if isinstance(tensors, Dequantised):  # nothing else was asked for: bit for bit
        tensors = tensors.stored
    return {"": ({CONFIG: config, **found.files}, tensors)}
