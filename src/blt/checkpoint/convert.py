"""Checkpoints of other projects, in and out: one file per layout, tensors streamed one by one."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from blt.checkpoint.folders import (
    CONFIG,
    FORMAT,
    TRAINER,
    Checkpoint,
    check_target,
    move_into_place,
    read_config,
    replace_folder,
)
from blt.checkpoint.layouts import llama, meta, ours, transformers
from blt.checkpoint.layouts.meta_config import PARAMS
from blt.checkpoint.layouts.names import Layout
from blt.errors import UserError, require
from blt.files import checksums, stored
from blt.files.hub import local_folder
from blt.files.tensors import Cast

LAYOUTS = {"blt": ours.layout, "transformers": transformers.layout, "meta": meta.layout}
PRECISIONS = {"float32": torch.float32, "bfloat16": torch.bfloat16}


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
    """A token model under the names of ours: one of ours, or a Llama or Mistral of transformers.

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
    """Of the model; what a training goes on with is checked when it does."""
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


def convert(
    source: str | os.PathLike[str],
    out: str | os.PathLike[str],
    to: Layout = "blt",
    *,
    entropy_model: str | os.PathLike[str] | None = None,
    precision: str | None = None,
    shard_bytes: int = stored.SHARD_BYTES,
) -> None:
    """Write a model in another layout, whole or not at all; weights pass through bit for bit.

    Args:
        source: model folder of any layout, or a hub id ("owner/name").
        out: folder to make; a model that is there is replaced.
        to: blt, transformers or meta.
        entropy_model: Meta's layout: folder or hub id of the entropy model.
        precision: float32 or bfloat16; None: each tensor as it is.
        shard_bytes: of a file; larger models are split.

    Raises:
        UserError: a source that cannot be read, or that the layout cannot hold.
    """
    require(to in LAYOUTS, f"unknown layout {to!r}: choose one of {', '.join(LAYOUTS)}")
    require(
        precision is None or precision in PRECISIONS,
        f"unknown precision {precision!r}: choose one of {', '.join(PRECISIONS)}",
    )
    target, folder = Path(out), local_folder(source)
    check_target(target)
    _check_apart(folder, target)
    entropy_folder = None if entropy_model is None else local_folder(entropy_model)
    found = open_checkpoint(folder, entropy_folder)
    if precision is not None:
        found = replace(found, tensors=Cast(found.tensors, PRECISIONS[precision]))
    layout = llama.layout if (found.kind, to) == ("token", "transformers") else LAYOUTS[to]
    parts = layout(found)
    with replace_folder(target) as temporary:
        new = Path(temporary) / "new"
        for name, (files, tensors) in parts.items():
            (new / name).mkdir()
            _write_json(new / name, files)
            stored.write(new / name, tensors, shard_bytes)
            checksums.record(new / name)
        move_into_place(new, target)


def _write_json(folder: Path, files: dict[str, Any]) -> None:
    for name, data in files.items():
        (folder / name).write_text(json.dumps(data, indent=2) + "\n")


def _check_apart(source: Path, target: Path) -> None:
    """What is replaced must not be what is read."""
    a, b = source.resolve(), target.resolve()
    if a.is_relative_to(b) or b.is_relative_to(a):
        raise UserError(f"{target}: lies with the source {source}; write to another folder")
