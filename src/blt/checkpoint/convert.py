"""A model folder in another layout: tensors are streamed, one by one."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from blt.chat.source import TEMPLATE, read_source
from blt.checkpoint import adapters
from blt.checkpoint.folders import Checkpoint, check_target, move_into_place, replace_folder
from blt.checkpoint.layouts import llama, meta, ours, transformers
from blt.checkpoint.layouts.names import Layout
from blt.checkpoint.layouts.ours import refuse_tables
from blt.checkpoint.open import open_checkpoint
from blt.checkpoint.pretrained import PRETRAINED, shipped
from blt.errors import UserError, require
from blt.files import checksums, stored
from blt.files.hub import local_folder
from blt.files.int8 import Quantised
from blt.files.tensors import Cast

LAYOUTS = {"blt": ours.layout, "transformers": transformers.layout, "meta": meta.layout}
INT8 = "int8"
# Of int8: what is rounded, and stays where nothing is.
PRECISIONS = {"float32": torch.float32, "bfloat16": torch.bfloat16, INT8: torch.float32}


def convert(
    source: str | os.PathLike[str],
    out: str | os.PathLike[str],
    to: Layout = "blt",
    *,
    entropy_model: str | os.PathLike[str] | None = None,
    precision: str | None = None,
    merge: str | os.PathLike[str] | None = None,
    shard_bytes: int = stored.SHARD_BYTES,
) -> None:
    """Write a model in another layout, whole or not at all; weights pass through bit for bit, and
    its chat template goes along.

    Args:
        source: model folder of any layout, a hub id ("owner/name"), or "pretrained", in float32.
        out: folder to make; a model that is there is replaced.
        to: blt, transformers or meta.
        entropy_model: Meta's layout: folder or hub id of the entropy model.
        precision: float32, bfloat16, or (in our own layout) int8 with a scale for each row; None:
            each tensor as it is.
        merge: folder of an adapter (LoRA) to add to the weights.
        shard_bytes: of a file; larger models are split.

    Raises:
        UserError: a source that cannot be read, or that the layout cannot hold.
    """
    require(to in LAYOUTS, f"unknown layout {to!r}: choose one of {', '.join(LAYOUTS)}")
    require(
        precision is None or precision in PRECISIONS,
        f"unknown precision {precision!r}: choose one of {', '.join(PRECISIONS)}",
    )
    require(
        precision != INT8 or to == "blt",
        f"only our own layout has {INT8}: leave out --to {to}, or choose --precision "
        "float32 or bfloat16",
    )
    if os.fspath(source) == PRETRAINED:
        with shipped("blt") as inside:  # stored in few bits to keep the package small
            convert(
                *(inside, out, to),
                entropy_model=entropy_model,
                precision=precision or "float32",
                merge=merge,
                shard_bytes=shard_bytes,
            )
        return
    target, folder = Path(out), local_folder(source)
    check_target(target)
    _check_apart(folder, target)
    entropy_folder = None if entropy_model is None else local_folder(entropy_model)
    if adapters.is_adapter(folder):
        base = adapters.base_of(folder)
        raise UserError(f"{folder}: is an adapter; try: blt convert {base} {out} --merge {folder}")
    found = _changed(open_checkpoint(folder, entropy_folder), precision, merge)
    layout = llama.layout if (found.kind, to) == ("token", "transformers") else LAYOUTS[to]
    if to != "blt":
        refuse_tables(found.config, found.where, to)
    of_adapter = None if merge is None else read_source(local_folder(merge))
    parts, template = layout(found), of_adapter or read_source(folder)
    with replace_folder(target) as temporary:
        new = Path(temporary) / "new"
        for name, (files, tensors) in parts.items():
            (new / name).mkdir()
            _write_json(new / name, files)
            stored.write(new / name, tensors, shard_bytes)
            if name == "" and template is not None:
                (new / TEMPLATE).write_text(template.text, encoding="utf-8")
            checksums.record(new / name)
        move_into_place(new, target)


def _changed(
    found: Checkpoint, precision: str | None, merge: str | os.PathLike[str] | None
) -> Checkpoint:
    """A model in another precision, after an adapter was added to its weights; rounded once."""
    if merge is not None:
        if precision is not None:
            found = replace(found, tensors=Cast(found.tensors, torch.float32))
        found = adapters.merged(found, local_folder(merge))
    if precision is not None:
        found = replace(found, tensors=Cast(found.tensors, PRECISIONS[precision]))
    return replace(found, tensors=Quantised(found.tensors)) if precision == INT8 else found


def _write_json(folder: Path, files: dict[str, Any]) -> None:
    for name, data in files.items():
        (folder / name).write_text(json.dumps(data, indent=2) + "\n")


def _check_apart(source: Path, target: Path) -> None:
    """What is replaced must not be what is read."""
    a, b = source.resolve(), target.resolve()
    if a.is_relative_to(b) or b.is_relative_to(a):
        raise UserError(f"{target}: lies with the source {source}; write to another folder")
