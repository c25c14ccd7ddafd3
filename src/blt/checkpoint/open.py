"""Open a model folder of any layout: its config and the shapes of its tensors, then the model."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import nn

from blt.checkpoint.folders import (
    CONFIG,
    FORMAT,
    TRAINER,
    Checkpoint,
    fill,
    read_config,
    skeleton,
)
from blt.checkpoint.layouts import llama, meta, ours, transformers
from blt.checkpoint.layouts.meta_config import PARAMS
from blt.checkpoint.layouts.names import Layout
from blt.errors import UserError, require
from blt.files import checksums
from blt.files.hub import local_folder


def opened(found: Checkpoint, classes: Mapping[str, type[nn.Module]]) -> nn.Module:
    """The model of a checkpoint, as an instance of the class for its kind, to be used."""
    model = skeleton(classes[found.kind], found.config, found.where)
    fill(model, found.tensors)
    return model.eval()


def open_checkpoint(folder: Path, entropy_model: Path | None = None) -> Checkpoint:
    """The model in a folder of any layout: its config and the shapes of its tensors, checked.

    Args:
        entropy_model: folder of the entropy model, where Meta's layout keeps it elsewhere.

    Raises:
        UserError: missing, damaged, foreign or inconsistent; says which file and the way out.
    """
    found = open_layout(folder, entropy_model)
    for place in (folder, entropy_model or folder / meta.INSIDE):
        _check_files(place)
    return found


def open_layout(folder: Path, entropy_model: Path | None = None) -> Checkpoint:
    """As :func:`open_checkpoint`, without its files being compared with their checksums."""
    layout, data = _layout_of(folder)
    if layout == "meta":
        return meta.open_folder(folder, entropy_model)
    require(
        entropy_model is None,
        f"{folder}: has its entropy model within; --entropy-model is for Meta's layout",
    )
    return (ours if layout == "blt" else transformers).open_folder(folder, data)


def open_token_model(source: str | os.PathLike[str]) -> Checkpoint:
    """A token model under the names of ours: one of ours, or one of transformers
    whose layers ours can have.

    Args:
        source: a folder, or a hub id ("owner/name") that is no folder here.

    Raises:
        UserError: missing, damaged or another kind of model; says which file and the way out.
    """
    folder = local_folder(source)
    data = read_config(folder)
    if data.get("format") == FORMAT:
        found = ours.open_folder(folder, data)
        require(found.kind == "token", f"{folder}: is a {found.kind} model; name a token model")
    else:
        found = llama.open_folder(folder, data)
    _check_files(folder)
    return found


def _check_files(folder: Path) -> None:
    """Compare a model's files with their checksums; a training checks its own when it goes on."""
    checksums.check(folder, but=TRAINER)


def layout_of(folder: Path) -> Layout:
    """Which layout a model folder is in, by its config.json.

    Raises:
        UserError: no such folder, a damaged config, or that of something else.
    """
    return _layout_of(folder)[0]


def _layout_of(folder: Path) -> tuple[Layout, dict[str, Any]]:
    if not (folder / CONFIG).is_file() and (folder / PARAMS).is_file():
        return "meta", {}
    data = read_config(folder)
    if data.get("format") == FORMAT:
        return "blt", data
    if data.get("model_type") == "blt":
        return "transformers", data
    if isinstance(data.get("args"), dict):
        return "meta", data
    found = data.get("model_type", data.get("format"))
    raise UserError(
        f"{folder / CONFIG}: not a blt checkpoint (found {found!r}); known: our layout, BLT of "
        "transformers, and Meta's"
    )
