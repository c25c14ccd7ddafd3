"""Model folders: config.json and model.safetensors, written whole or not at all."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from blt.errors import UserError
from blt.swap import exchange

FORMAT = "blt-1"
CONFIG, WEIGHTS = "config.json", "model.safetensors"


def replace_folder(folder: str | os.PathLike[str]) -> tempfile.TemporaryDirectory[str]:
    """A temporary folder beside ``folder``, for :func:`move_into_place`."""
    target = Path(folder)
    target.parent.mkdir(parents=True, exist_ok=True)
    return tempfile.TemporaryDirectory(prefix=f".{target.name}.", dir=target.parent)


def move_into_place(written: Path, folder: Path) -> None:
    """Put the complete folder ``written`` where ``folder`` is; the old one stays beside it, to go.

    Where the system can swap folders, a kill at any moment leaves the old or the new one, whole.
    """
    if folder.exists() and exchange(written, folder):
        return
    old = written.parent / "old"
    if folder.exists():
        os.replace(folder, old)
    os.replace(written, folder)


def save(
    folder: str | os.PathLike[str],
    config: dict[str, Any],
    tensors: Mapping[str, Tensor],
    files: Mapping[str, str] | None = None,
) -> None:
    """Write a model folder, with more ``files`` in it, beside ``folder`` and move it into place."""
    target = Path(folder)
    if target.exists() and not (target / CONFIG).is_file() and any(target.iterdir()):
        raise UserError(f"{target}: is not a model folder, and is not overwritten; choose another")
    with replace_folder(target) as temporary:
        new = Path(temporary) / "new"
        new.mkdir()
        (new / CONFIG).write_text(json.dumps({"format": FORMAT, **config}, indent=2) + "\n")
        for name, text in (files or {}).items():
            (new / name).write_text(text)
        save_file(
            {name: t.detach().cpu().contiguous() for name, t in tensors.items()}, new / WEIGHTS
        )
        (new / WEIGHTS).chmod((new / CONFIG).stat().st_mode)  # safetensors lets only us read it
        move_into_place(new, target)


def read_config(folder: str | os.PathLike[str]) -> dict[str, Any]:
    """The config of a model folder.

    Raises:
        UserError: no such folder, no or damaged config.json, another project's checkpoint.
    """
    path = Path(folder) / CONFIG
    if not path.is_file():
        raise UserError(f"{folder}: {_missing(Path(folder))}")
    try:
        config = json.loads(path.read_text())
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise UserError(f"{path}: damaged ({error}); restore it or save the model again") from None
    if not isinstance(config, dict) or config.get("format") != FORMAT:
        found = config.get("model_type", config.get("format")) if isinstance(config, dict) else None
        raise UserError(
            f"{path}: not a blt checkpoint (found {found!r}); load a transformers BLT model with "
            "transformers and pass it to blt.from_transformers()"
        )
    return config


def _missing(folder: Path) -> str:
    """Why there is no config.json, and the way out."""
    if not folder.exists():
        return "no such folder; train a model with `blt demo` or `blt train`"
    inside = folder / "checkpoint"
    if (inside / CONFIG).is_file():
        return f"is the folder of a run; its model is {inside}"
    return f"no {CONFIG} here; expected a folder written by lm.save()"


def load_weights(folder: str | os.PathLike[str], model: nn.Module) -> None:
    """Fill ``model`` from a model folder; names and shapes must match exactly.

    Raises:
        UserError: missing or damaged file, missing, unknown or wrongly shaped tensors.
    """
    path = Path(folder) / WEIGHTS
    if not path.is_file():
        raise UserError(f"{path}: missing; the folder is not a complete model")
    try:
        tensors = load_file(path)
    except (SafetensorError, OSError) as error:
        raise UserError(f"{path}: damaged ({error}); restore it or save the model again") from None
    _check(path, tensors, model.state_dict())
    for parameter, name in ((p, n) for n, p in model.named_parameters()):
        parameter.data = parameter.data.to(tensors[name].dtype)
    model.load_state_dict(tensors)


def _check(path: Path, found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    for name, tensor in expected.items():
        if name not in found:
            raise UserError(f"{path}: tensor {name!r} is missing; does {CONFIG} belong to it?")
        if found[name].shape != tensor.shape:
            raise UserError(
                f"{path}: tensor {name!r} has shape {tuple(found[name].shape)}, "
                f"{CONFIG} asks for {tuple(tensor.shape)}"
            )
    unknown = sorted(set(found) - set(expected))
    if unknown:
        raise UserError(f"{path}: unknown tensor {unknown[0]!r}; does {CONFIG} belong to it?")


def build(model_class: type[nn.Module], config: Any) -> nn.Module:
    """An instance whose weights are not initialised, to be filled by :func:`load_weights`."""
    with torch.device("meta"):
        model = model_class(config)
    return model.to_empty(device="cpu")
