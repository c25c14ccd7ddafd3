"""Model folders: config.json and model.safetensors, written whole or not at all."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from blt.errors import UserError, first_line
from blt.files import checksums, durable
from blt.files.stored import WEIGHTS
from blt.files.strict_json import read_object
from blt.files.swap import exchange
from blt.files.tensors import Spec, Tensors, UnwrittenError, save_whole

FORMAT = "blt-1"
CONFIG, CARD = "config.json", "README.md"
TOKENIZER = "tokenizer.json"  # of a token model
PATCHING = "patching.json"  # beside an entropy model: the rule and θ calibrated for it
TOLD_BY = ("model_type", "args", "peft_type")  # keys in other layouts' configs
SUFFIXES = (".json", ".safetensors", ".pth", ".jinja", ".model")  # of a model's own files
# What comes with models: cards, licences, tokenizers of transformers, and what hubs leave.
BESIDE = (
    *("README.md", "LICENSE", "LICENSE.txt", "LICENSE.md", "NOTICE", "USE_POLICY.md"),
    *("merges.txt", "vocab.txt", ".gitattributes", ".cache"),
)
ANOTHER = "name another folder, such as one in it"
TRAINER = "trainer.json"  # beside a model in training: what it goes on with
INIT = "init.json"  # of a model that began as another one: which, what was changed, what it cost


@dataclass(frozen=True)
class Checkpoint:
    """A model on disk, whatever its layout: nothing of its weights is in memory yet."""

    where: str  # the folder, for messages
    kind: str  # blt, byte or token
    config: Any  # that of the kind
    tensors: Tensors  # under our names
    files: Mapping[str, Any] = field(default_factory=dict)  # other JSON files of our layout


def replace_folder(folder: str | os.PathLike[str]) -> tempfile.TemporaryDirectory[str]:
    """A temporary folder beside ``folder``, for :func:`move_into_place`."""
    target = Path(folder)
    target.parent.mkdir(parents=True, exist_ok=True)
    return tempfile.TemporaryDirectory(prefix=f".{target.name}.", dir=target.parent)


def move_into_place(written: Path, folder: Path) -> None:
    """Put the complete folder ``written`` where ``folder`` is; the old one stays beside it, to go,
    but for its card, which people write.

    Where the system can swap folders, a kill at any moment leaves the old or the new one, whole.

    Raises:
        UnwrittenError: the system keeps the old one where it is, and it stays as it was.
    """
    if (folder / CARD).is_file() and not (written / CARD).exists():
        shutil.copy(folder / CARD, written)
    durable.sync(written)
    if folder.exists() and exchange(written, folder):
        durable.sync_entries(folder.parent)
        return
    if not folder.exists():
        durable.replace(written, folder)
        return
    old = written.parent / "old"
    try:
        durable.replace(folder, old)
        durable.replace(written, folder)
    except BaseException as error:
        if old.exists() and not folder.exists():
            old.replace(folder)  # it would go with the temporary folder that it lies in
        if not isinstance(error, OSError):
            raise
        kept = f"cannot be replaced ({error.strerror or error}), and is as it was"
        raise UnwrittenError(f"{folder}: {kept}; {ANOTHER}") from None


def check_target(folder: Path, config: str = CONFIG) -> None:
    """Refuse to write a model over what is none, or over a training that could go on.

    Args:
        config: the file that makes a folder one of its kind.

    Raises:
        UserError: a file, or a folder that holds something else or a training's checkpoint, or
            that stays where it is.
    """
    _check_movable(folder)
    if (folder / TRAINER).is_file():
        raise UserError(f"{folder}: is the checkpoint of a training, and is not overwritten")
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return
    refused = "is not overwritten; choose another folder"
    if not (folder / config).is_file():
        raise UserError(f"{folder}: has no {config}, and {refused}")
    if not _tells_of_model(folder / config):
        raise UserError(f"{folder / config}: is not that of a model, and {refused}")
    other = next((path.name for path in sorted(folder.iterdir()) if not _is_part(path)), None)
    if other is not None:
        raise UserError(f"{folder}: has {other!r}, which is no part of a model, and {refused}")


def _check_movable(folder: Path) -> None:
    """Refuse a folder that cannot give its place to a new one, before that is made."""
    if folder.exists() and folder.samefile(os.curdir):
        raise UserError(f"{folder}: is the current folder, which cannot be replaced; {ANOTHER}")
    if os.path.ismount(folder):
        raise UserError(f"{folder}: is where a disk is mounted, and stays so; {ANOTHER}")


def _tells_of_model(config: Path) -> bool:
    known = read_object(config, "move it away, or choose another folder to write to")
    return known.get("format") == FORMAT or any(known.get(key) for key in TOLD_BY)


def _is_part(path: Path) -> bool:
    """May this lie in a model's folder: a file of one, or a model within it?"""
    if path.name in BESIDE or path.is_file():
        return path.name in BESIDE or path.suffix in SUFFIXES
    within = path / CONFIG
    return within.is_file() and _tells_of_model(within) and all(map(_is_part, path.iterdir()))


def save(
    folder: str | os.PathLike[str],
    config: dict[str, Any],
    tensors: Mapping[str, Tensor],
    files: Mapping[str, str] | None = None,
) -> None:
    """Write a model folder, with more ``files`` in it, beside ``folder`` and move it into place."""
    texts = {CONFIG: json.dumps({"format": FORMAT, **config}, indent=2) + "\n", **(files or {})}
    write_whole(Path(folder), texts, tensors)


def write_whole(
    target: Path,
    texts: Mapping[str, str],
    tensors: Mapping[str, Tensor],
    config: str = CONFIG,
    weights: str = WEIGHTS,
) -> None:
    """Write a folder of a model, or of something like one, beside ``target``; move it into place.

    Args:
        texts: files by name; of them ``config`` makes a folder one of its kind.

    Raises:
        UserError: as of :func:`check_target`, or what cannot be written.
    """
    check_target(target, config)
    with replace_folder(target) as temporary:
        new = Path(temporary) / "new"
        new.mkdir()
        for name, text in texts.items():
            (new / name).write_text(text, encoding="utf-8")
        save_whole(tensors, new / weights)
        (new / weights).chmod((new / config).stat().st_mode)  # safetensors lets only us read it
        checksums.record(new)
        move_into_place(new, target)


def read_config(folder: Path) -> dict[str, Any]:
    """What a model folder says of its model: its config.json, in any layout.

    Raises:
        UserError: no such folder, no config.json, or a damaged one.
    """
    path = folder / CONFIG
    if not path.is_file():
        raise UserError(f"{folder}: {_missing(folder)}")
    return read_object(path)


def _missing(folder: Path) -> str:
    """Why there is no config.json, and the way out."""
    if not folder.exists():
        return "no such folder; train a model with `blt demo` or `blt train`"
    inside = folder / "checkpoint"
    if (inside / CONFIG).is_file():
        return f"is the folder of a run; its model is {inside}"
    if (folder / "adapter_config.json").is_file():
        return "is an adapter; merge it first: blt convert BASE OUT --merge ADAPTER"
    return f"no {CONFIG} here; expected a folder written by lm.save()"


def skeleton(model_class: type[nn.Module], config: Any, where: str) -> nn.Module:
    """An instance that has shapes but no memory.

    Raises:
        UserError: a shape that no tensor can have.
    """
    try:
        with torch.device("meta"):
            return model_class(config)
    except (RuntimeError, OverflowError, TypeError) as error:
        reason = first_line(error)
        raise UserError(f"{where}/{CONFIG}: an impossible shape ({reason})") from None


def check(where: str, tensors: Tensors, expected: Mapping[str, Tensor]) -> None:
    """Compare names and shapes with those that the config asks for.

    Raises:
        UserError: missing, unknown or wrongly shaped tensors; names the first.
    """
    for name, tensor in expected.items():
        spec = tensors.specs.get(name)
        if spec is None:
            raise UserError(f"{where}: tensor {name!r} is missing; does {CONFIG} belong to it?")
        if spec.shape != tensor.shape:
            raise UserError(
                f"{where}: tensor {tensors.origin(name)!r} has shape {spec.shape}, "
                f"{CONFIG} asks for {tuple(tensor.shape)}"
            )
        if spec.dtype.is_floating_point != tensor.dtype.is_floating_point:
            raise UserError(
                f"{where}: tensor {tensors.origin(name)!r} is {spec.dtype}, not {tensor.dtype}"
            )
    refuse_unknown(where, tensors.specs, expected)


def refuse_unknown(where: str, found: Mapping[str, Spec], known: Collection[str]) -> None:
    """Refuse tensors that nobody asked for.

    Raises:
        UserError: names the first.
    """
    for name in sorted(found):
        if name not in known:
            raise UserError(f"{where}: unknown tensor {name!r}; does {CONFIG} belong to it?")


def check_layers(where: str, tensors: Tensors, *layers: int) -> None:
    """Refuse a number of layers that there cannot be, before a model of so many is made."""
    if max(layers) > len(tensors.specs):
        raise UserError(
            f"{where}: {CONFIG} asks for {max(layers)} layers, the weights are only "
            f"{len(tensors.specs)} tensors"
        )


def fill(model: nn.Module, tensors: Tensors) -> None:
    """Give a :func:`skeleton` its weights, one after the other, in the precision they have."""
    state = {name: tensors.read(name) for name in tensors.specs}
    model.load_state_dict(state, assign=True)
