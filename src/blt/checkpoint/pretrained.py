"""Entropy models ready to cut text: the small one inside the package, or one from a folder."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

from blt import lm
from blt.checkpoint import folders
from blt.errors import UserError
from blt.files import checksums, durable
from blt.files.configs import from_dict, to_dict
from blt.files.hub import local_folder
from blt.files.strict_json import read_object
from blt.model.byte_transformer import ByteTransformer
from blt.patching import PatchingConfig

PRETRAINED = "pretrained"  # name of the model inside the package
PATCHING = "patching.json"  # beside an entropy model: the rule and θ calibrated for it


@dataclass(frozen=True)
class Patcher:
    """An entropy model (None: the rule needs none) and the rule and θ that belong to it."""

    entropy_model: ByteTransformer | None
    config: PatchingConfig


@contextmanager
def _shipped(name: str) -> Iterator[Path]:
    """A model folder inside the package.

    Raises:
        UserError: this copy of the package was built without it.
    """
    with resources.as_file(resources.files("blt") / "assets" / name) as folder:
        if not (folder / folders.CONFIG).is_file():
            raise UserError(
                f"{folder}: the shipped model is missing from this installation; reinstall "
                "blt, or give a model with --model FOLDER"
            )
        yield folder


def load(folder: str | os.PathLike[str] = PRETRAINED) -> lm.LanguageModel:
    """Load a model folder, in our layout, transformers' or Meta's, or a hub id ("owner/name").

    "pretrained": the small BLT inside the package.

    Raises:
        UserError: missing, damaged or foreign checkpoint; says which file and the way out.
    """
    if folder != PRETRAINED:
        return lm.load(folder)
    with _shipped("blt") as inside:
        return lm.load(inside).float()  # stored as bfloat16 to keep the package small


def load_shipped() -> Patcher:
    """The entropy model inside the package.

    Raises:
        UserError: this copy of the package was built without it.
    """
    with _shipped("entropy_model") as folder:
        patcher = load_patcher(folder)
    if patcher.entropy_model is not None:
        patcher.entropy_model.float()  # stored as bfloat16 to keep the package small
    return patcher


def load_patcher(folder: str | os.PathLike[str]) -> Patcher:
    """What cuts text in a model folder: a BLT's own entropy model and rule, or a byte model.

    Raises:
        UserError: no such folder, or a damaged or foreign model.
    """
    model = lm.load(folder)
    if isinstance(model, lm.BLT):
        return Patcher(model.entropy_model, model.config.patching)
    if not isinstance(model, lm.ByteLM):
        raise UserError(f"{folder}: a {model.kind} model cannot cut text; name a BLT or byte model")
    return Patcher(model, read_patching(local_folder(folder) / PATCHING))


def find_entropy_model(name: str | None) -> ByteTransformer | None:
    """The entropy model in a folder, or the shipped one if it is called "pretrained".

    Raises:
        UserError: no model there, or one that has no entropy model.
    """
    if name is None:
        return None
    found = (load_shipped() if name == PRETRAINED else load_patcher(name)).entropy_model
    if found is None:
        raise UserError(f"entropy_model: {name}: the model there has no entropy model")
    return found


def identity(entropy_model: ByteTransformer) -> str:
    """SHA-256 of its shape and weights, whatever folder it comes from."""
    digest = hashlib.sha256(json.dumps(to_dict(entropy_model.config), sort_keys=True).encode())
    for name, tensor in sorted(ByteTransformer.state_dict(entropy_model).items()):
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
