"""From folders, hub ids and other libraries' models to models of ours."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from blt.chat.source import read_source
from blt.checkpoint import adapters
from blt.checkpoint.folders import INIT, PATCHING, Checkpoint
from blt.checkpoint.layouts import transformers
from blt.checkpoint.open import open_checkpoint, opened
from blt.checkpoint.pretrained import PRETRAINED, shipped
from blt.errors import require
from blt.files.hub import local_folder
from blt.files.tensors import Cast
from blt.lm.byte_models import BLT, ByteLM
from blt.lm.language_model import LanguageModel
from blt.lm.token_models import TokenLM
from blt.machine.precision import choose_device

FACES: dict[str, type[LanguageModel]] = {"blt": BLT, "byte": ByteLM, "token": TokenLM}


def load(
    source: str | os.PathLike[str] = PRETRAINED,
    device: str | torch.device = "cpu",
    adapter: str | os.PathLike[str] | None = None,
) -> LanguageModel:
    """Load a model folder, in our layout, transformers' or Meta's, or a hub id ("owner/name").

    Tensors of a gigabyte or more, such as hash tables, are mapped into memory and not read, unless
    they go to a GPU.

    Args:
        source: a folder, or a hub id that is no folder here; "pretrained": the small BLT inside
            the package.
        device: "cpu", "cuda", "cuda:1", or "auto": a GPU where there is one. Weights keep the
            precision that they are stored in; int8 is read as float32.
        adapter: folder of one in peft's layout (LoRA), to add to the weights. A ``source`` that is
            itself one is loaded with the base that it names.

    Raises:
        UserError: missing, damaged or foreign checkpoint; says which file and the way out; or no
            such device.
    """
    place = choose_device(device, "device")
    if os.fspath(source) == PRETRAINED:
        with shipped("blt") as inside:
            found = open_checkpoint(inside)  # stored as int8 to keep the package small
            wide = replace(found, tensors=Cast(found.tensors, torch.float32))
            return _adapted(wide, inside, adapter).to(place)
    folder = local_folder(source)
    if adapters.is_adapter(folder):
        require(adapter is None, f"{folder}: is an adapter itself; give its base and one of them")
        return load(adapters.base_of(folder), place, folder)
    return _adapted(open_checkpoint(folder), folder, adapter).to(place)


def _adapted(
    found: Checkpoint, folder: Path, adapter: str | os.PathLike[str] | None
) -> LanguageModel:
    """The model of a checkpoint, with an adapter merged into its weights."""
    if adapter is not None:
        found = adapters.merged(found, local_folder(adapter))
    model = opened(found, FACES)
    assert isinstance(model, LanguageModel)
    model.read_files(folder)
    model.begun = found.files.get(INIT)
    if isinstance(model, ByteLM):
        model.patching = found.files.get(PATCHING)
    own = None if adapter is None else read_source(local_folder(adapter))
    model.chat_template = model.chat_template if own is None else own.text
    return model


def from_transformers(hf_model: Any) -> BLT:
    """A BLT with the weights of a ``transformers`` ``BltForCausalLM`` and of its patcher.

    Logits equal ``hf_model(ids, use_cache=False).logits`` to rounding, in the same precision.

    Raises:
        UserError: a shape or option that this library does not have; names it.
    """
    model = opened(transformers.checkpoint_of(hf_model), FACES)
    assert isinstance(model, BLT)
    return model
