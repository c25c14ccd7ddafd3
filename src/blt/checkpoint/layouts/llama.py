"""``transformers``' Llama, Mistral, Qwen 2 and 3 and OLMo 2 models, whose layers our token models
can have.

One thing is laid out otherwise. RoPE rotates features i and i + D/2 of a head there, neighbours
here: rows of queries and keys change places, and so do their biases and the weights of their norms.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from blt.checkpoint.folders import (
    CONFIG,
    TOKENIZER,
    Checkpoint,
    check_layers,
    refuse_unknown,
    skeleton,
)
from blt.checkpoint.layouts.llama_config import read_config, write_config
from blt.checkpoint.layouts.names import Mapped, Names, from_theirs, qkv_shares, to_theirs
from blt.checkpoint.layouts.ours import check_against, layers_of
from blt.checkpoint.layouts.transformers import COMPUTED
from blt.checkpoint.layouts.transformers import NAMES as BLT_NAMES
from blt.errors import UserError, named, require
from blt.files.stored import Stored
from blt.files.tensors import Rearranged, Spec, Tensors, widest
from blt.model.config import TokenTransformerConfig
from blt.model.transformer import CausalTransformer
from blt.tokens.tokenizer import ByteTokenizer

EMBEDDING, HEAD = "model.embed_tokens.weight", "lm_head.weight"
BIASES = {"attention.qkv_bias": tuple(f"self_attn.{x}_proj.bias" for x in "qkv")}
QK_NORMS = {f"attention.{x}_norm.weight": (f"self_attn.{x}_norm.weight",) for x in "qk"}
NORMS_AFTER = {
    "attention_norm.weight": ("post_attention_layernorm.weight",),
    "ff_norm.weight": ("post_feedforward_layernorm.weight",),
}
NAMES = Names(
    modules={"lm": "model"},
    layer={**BLT_NAMES.layer, **BIASES, **QK_NORMS},
    cross_attention={},
    others={
        "lm.embedding": EMBEDDING,
        "lm.norm.weight": "model.norm.weight",
        "lm.head.weight": HEAD,
    },
    table="",
)
PROJECTION = re.compile(r"\.self_attn\.([qkv])_proj\.(weight|bias)$")
NORM = re.compile(r"\.self_attn\.([qk])_norm\.weight$")
BOS, EOS = "<|begin_of_text|>", "<|end_of_text|>"


def open_folder(folder: Path, data: dict[str, Any]) -> Checkpoint:
    """The model in a folder with this config, as a token model of ours.

    Its special tokens are its own ones, wherever they are: its logits are right, but it is no
    :class:`blt.lm.TokenLM`.

    Raises:
        UserError: layers that are not ours, or weights that do not belong to the config.
    """
    where = str(folder)
    config = read_config(data, f"{folder}/{CONFIG}")
    stored = Stored(folder)
    check_layers(where, stored, *layers_of(config))
    mapped = mapping(config)
    known = {name for names in mapped.values() for name in names}
    found = {name: spec for name, spec in stored.specs.items() if not name.endswith(COMPUTED)}
    refuse_unknown(where, found, known)
    if data.get("tie_word_embeddings") is True:
        mapped["head.weight"] = (EMBEDDING,)
    heads = _interleaved(stored, config, where)
    shares = qkv_shares("transformer", config.layers, config.heads, config.block)
    tensors = Rearranged(heads, from_theirs(mapped, shares), where)
    check_against(where, "token", config, tensors)
    return Checkpoint(where, "token", config, tensors)


def layout(found: Checkpoint) -> dict[str, tuple[dict[str, Any], Tensors]]:
    """JSON files and tensors to write for a token model of ours, by subfolder.

    Raises:
        UserError: a tokenizer that is not ours.
    """
    config = write_config(found.config, found.where)
    pieces = to_theirs(mapping(found.config))
    tensors = _halves(Rearranged(found.tensors, pieces, found.where), found.config)
    config["dtype"] = widest(tensors)  # transformers reads all tensors as that
    described = found.files.get(TOKENIZER)
    if described is None:
        raise UserError(f"{found.where}: has no {TOKENIZER}; restore it")
    files = {
        CONFIG: config,
        TOKENIZER: _tokenizer(described, found),
        "tokenizer_config.json": {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "bos_token": BOS,
            "eos_token": EOS,
            "clean_up_tokenization_spaces": False,
        },
    }
    return {"": (files, tensors)}


def mapping(config: TokenTransformerConfig) -> Mapped:
    """Our names → the names there whose rows they hold."""
    ours = skeleton(CausalTransformer, config, "").state_dict()
    names = NAMES
    if config.block.norm == "after":
        names = replace(names, layer={**names.layer, **NORMS_AFTER})
    named = names.mapping((f"lm.{name}" for name in ours), tables=0)
    return {name.removeprefix("lm."): theirs for name, theirs in named.items()}


class Reordered(Tensors):
    """Other tensors, some with their rows in another order."""

    def __init__(self, source: Tensors, orders: Mapping[str, Tensor]) -> None:
        self.source, self.orders = source, orders
        self.specs = {
            name: Spec(spec.dtype, (len(orders[name]) if name in orders else spec.shape[0], *rest))
            for name, spec in source.specs.items()
            for rest in [spec.shape[1:]]
        }

    def rows(self, name: str, start: int, stop: int) -> Tensor:
        if name not in self.orders:
            return self.source.rows(name, start, stop)
        return self.source.read(name)[self.orders[name][start:stop]]

    def read(self, name: str) -> Tensor:
        return super().read(name) if name in self.orders else self.source.read(name)


def _interleaved(stored: Tensors, config: TokenTransformerConfig, where: str) -> Reordered:
    """Their queries and keys with the pairs of a head's features side by side, as ours are."""
    block, orders = config.block, {}
    head_dim = block.features(config.dim, config.heads)
    for name, spec in stored.specs.items():
        if found := PROJECTION.search(name) or NORM.search(name):
            heads = config.heads if found[1] == "q" else block.key_value_heads(config.heads)
            if NORM.search(name) and block.qk_norm == "head":
                heads = 1
            shape = (heads * head_dim, config.dim)[: len(spec.shape)]
            require(
                spec.shape == shape,
                f"{where}: tensor {name!r} has shape {spec.shape}, {CONFIG} asks for {shape}",
            )
            if found[1] != "v":  # 0, D/2, 1, D/2 + 1, ...
                rows = torch.arange(heads * head_dim, dtype=torch.int64, device="cpu")
                orders[name] = rows.view(heads, 2, -1).transpose(1, 2).flatten()
    return Reordered(stored, orders)


def _halves(tensors: Tensors, config: TokenTransformerConfig) -> Reordered:
    """Our queries and keys with the pairs of a head's features in its halves."""
    rows = torch.arange(config.dim, dtype=torch.int64, device="cpu")
    rows = rows.view(config.heads, -1, 2).transpose(1, 2).flatten()
    projections = {name: PROJECTION.search(name) for name in tensors.specs}
    return Reordered(tensors, {name: rows for name, p in projections.items() if p and p[1] != "v"})


def _tokenizer(described: dict[str, Any], found: Checkpoint) -> dict[str, Any]:
    """Our tokenizer.json, with the model's BOS and EOS as special tokens, and BOS in front."""
    with named(f"{found.where}/{TOKENIZER}"):
        ByteTokenizer(json.dumps(described))
    ids = {BOS: found.config.vocab_size, EOS: found.config.vocab_size + 1}
    flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
    added = [{"id": i, "content": text, **flags, "special": True} for text, i in ids.items()]
    bos, text = {"SpecialToken": {"id": BOS, "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}
    first = {
        "type": "TemplateProcessing",
        "single": [bos, text],
        "pair": [bos, text, {"Sequence": {"id": "B", "type_id": 0}}],
        "special_tokens": {BOS: {"id": BOS, "ids": [ids[BOS]], "tokens": [BOS]}},
    }
    model = described["model"]
    return {
        **described,
        "model": {**model, "vocab": {**model["vocab"], **ids}},  # their ids need not be the next
        "added_tokens": [*described["added_tokens"], *added],
        "post_processor": first,
    }
