"""Patchers ready to cut text, with an entropy model of the package or of a folder."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from importlib import resources
from pathlib import Path
from typing import Any

import torch
from torch import nn

from blt.checkpoint import adapters
from blt.checkpoint.folders import CONFIG, PATCHING
from blt.checkpoint.open import open_checkpoint, opened
from blt.errors import UserError
from blt.files import checksums, durable
from blt.files.configs import from_dict, to_dict
from blt.files.hub import local_folder
from blt.files.strict_json import read_object
from blt.model.blt import ByteLatentTransformer
from blt.model.language import KINDS
from blt.model.transformer import CausalTransformer
from blt.patching.patcher import Patcher
from blt.patching.rules import PatchingConfig, refuse_unused
from blt.patching.tables import read_lookup_table, token_offsets

PRETRAINED = "pretrained"  # name of the model inside the package


@contextmanager
def shipped(name: str) -> Iterator[Path]:
    """A model folder inside the package.

    Raises:
        UserError: this copy of the package was built without it.
    """
    with resources.as_file(resources.files("blt") / "assets" / name) as folder:
        if not (folder / CONFIG).is_file():
            raise UserError(
                f"{folder}: the shipped model is missing from this installation; reinstall "
                "blt, or give a model with --model FOLDER"
            )
        yield folder


def load_shipped() -> Patcher:
    """The entropy model inside the package, and the rule calibrated for it.

    Raises:
        UserError: this copy of the package was built without it.
    """
    with shipped("entropy_model") as folder:
        return _float(load_patcher(folder))


def _float(patcher: Patcher) -> Patcher:
    """Wider again: models in the package are stored in few bits to keep it small."""
    if isinstance(patcher.entropy_model, CausalTransformer):
        patcher.entropy_model.float()
    return patcher


def load_patcher(folder: str | os.PathLike[str]) -> Patcher:
    """What cuts text in a model folder: that of a BLT, or a byte model with its own rule.

    "pretrained" is the BLT inside the package.

    Raises:
        UserError: no such folder, or a damaged or foreign model.
    """
    if os.fspath(folder) == PRETRAINED:
        with shipped("blt") as inside:
            return _float(load_patcher(inside))
    place = local_folder(folder)
    adapted = adapters.is_adapter(place)
    if adapted and adapters.base_of(place) == PRETRAINED:
        return load_patcher(PRETRAINED)  # a BLT, whose entropy model no adapter changes
    found = open_checkpoint(local_folder(adapters.base_of(place)))
    found = adapters.merged(found, place) if adapted else found
    model = opened(found, {kind: model for kind, (model, _) in KINDS.items()})
    if isinstance(model, ByteLatentTransformer):
        return model.patcher
    assert isinstance(model, CausalTransformer)
    if model.kind != "byte":
        raise UserError(f"{folder}: a {model.kind} model cannot cut text; name a BLT or byte model")
    own = found.files.get(PATCHING, {})  # nobody may have calibrated it
    return Patcher(from_dict(PatchingConfig, own, f"{found.where}/{PATCHING}"), model)


def find_entropy_model(name: str | None) -> CausalTransformer | None:
    """The entropy model in a folder, or the shipped one if it is called "pretrained".

    Raises:
        UserError: no model there, or one that has no entropy model.
    """
    if name is None:
        return None
    found = (load_shipped() if name == PRETRAINED else load_patcher(name)).entropy_model
    if not isinstance(found, CausalTransformer):
        raise UserError(f"entropy_model: {name}: the model there has no entropy model")
    return found


def patcher_of(
    rule: str | None,
    parameters: dict[str, Any],
    *,
    model: Path | None = None,
    table: Path | None = None,
    tokenizer: Path | None = None,
    device: torch.device | None = None,
) -> Patcher:
    """A patcher from a user's choices.

    Args:
        rule: None for the one that belongs to the model.
        parameters: fields of :class:`blt.PatchingConfig`; None stands for the model's own value.
        model: folder of a BLT or byte model; None for the shipped entropy model.
        table: safetensors file of the ``lookup`` rule.
        tokenizer: ``tokenizer.json`` of the ``bpe`` rule.
        device: where the entropy model works; None: the CPU.

    Raises:
        UserError: an unknown rule, an impossible value, a missing or damaged file.
    """
    given = {key: value for key, value in parameters.items() if value is not None}
    given |= {"rule": rule} if rule is not None else {}
    config = from_dict(PatchingConfig, given, "blt patch")
    patcher = Patcher(config)
    if rule is None or config.needs_entropies or model is not None:
        patcher = load_patcher(model) if model is not None else load_shipped()
        config = from_dict(PatchingConfig, to_dict(patcher.config) | given, "blt patch")
    refuse_unused(config.rule, given)
    if config.is_learned and patcher.router is None:
        raise UserError(
            f"rule {config.rule!r} needs --model FOLDER: a BLT that learned where to cut"
        )
    for part in (patcher.entropy_model, patcher.router):
        if isinstance(part, nn.Module):
            part.to(device)
    if config.rule == "lookup" and (table is not None or patcher.table is None):
        patcher = replace(patcher, table=read_lookup_table(table))
    return Patcher(
        config,
        patcher.entropy_model if config.needs_entropies else None,
        patcher.table if config.rule == "lookup" else None,
        token_offsets(tokenizer) if config.rule == "bpe" else None,
        patcher.router if config.is_learned else None,
    )


def identity(entropy_model: CausalTransformer) -> str:
    """SHA-256 of its shape and weights, whatever folder it comes from."""
    shape = to_dict(entropy_model.config)
    if not entropy_model.config.hash_ngram_sizes:  # as before there were any
        shape = {name: value for name, value in shape.items() if not name.startswith("hash_")}
    digest = hashlib.sha256(json.dumps(shape, sort_keys=True).encode())
    for name, tensor in sorted(CausalTransformer.state_dict(entropy_model).items()):
        digest.update(name.encode())
        digest.update(tensor.detach().float().cpu().numpy().tobytes())
    return digest.hexdigest()


def read_patching(path: Path) -> PatchingConfig:
    """The rule and θ of a byte model; the defaults when nobody has calibrated it."""
    if not path.is_file():
        return PatchingConfig()
    return from_dict(PatchingConfig, read_object(path, "restore it or calibrate again"), str(path))


def save_patching(folder: str | os.PathLike[str], config: PatchingConfig) -> None:
    """Write the calibrated rule beside an entropy model, whole or not at all."""
    path = Path(folder) / PATCHING
    with checksums.changing(Path(folder), PATCHING):
        durable.write_json(path, to_dict(config), indent=2)
