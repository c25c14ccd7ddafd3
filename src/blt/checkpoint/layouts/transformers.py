"""The layout of ``transformers``' ``BltForCausalLM``: the same weights, only laid out otherwise."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from blt.checkpoint.folders import CONFIG, Checkpoint, check_layers, refuse_unknown, skeleton
from blt.checkpoint.layouts.byte_tokenizer import generation_config, tokenizer_files
from blt.checkpoint.layouts.names import (
    Mapped,
    Names,
    Shares,
    from_theirs,
    qkv_shares,
    to_theirs,
)
from blt.checkpoint.layouts.ours import check_against, layers_of
from blt.checkpoint.layouts.transformers_config import read_config, write_config
from blt.errors import UserError
from blt.files.stored import Stored
from blt.files.tensors import Held, Rearranged, Tensors, widest
from blt.model.blt import ByteLatentTransformer
from blt.model.config import Config

NAMES = Names(
    modules={
        "encoder": "model.local_encoder",
        "decoder": "model.local_decoder",
        "global_transformer": "model.global_transformer",
        "entropy_model": "model.patcher",
    },
    layer={
        "attention_norm.weight": ("input_layernorm.weight",),
        "attention.qkv.weight": tuple(f"self_attn.{x}_proj.weight" for x in "qkv"),
        "attention.out.weight": ("self_attn.o_proj.weight",),
        "ff_norm.weight": ("post_attention_layernorm.weight",),
        "ff.gate_up.weight": ("mlp.gate_proj.weight", "mlp.up_proj.weight"),
        "ff.down.weight": ("mlp.down_proj.weight",),
    },
    cross_attention={
        "query_norm.weight": ("q_norm.weight",),
        "key_value_norm.weight": ("k_norm.weight",),
        "query.weight": ("q_proj.weight",),
        "key_value.weight": ("k_proj.weight", "v_proj.weight"),
        "out.weight": ("o_proj.weight",),
    },
    others={
        "encoder.embedding.byte": "model.local_encoder.embed_tokens.weight",
        "encoder.patch_projection.weight": "model.local_encoder.patch_embedding_projection.weight",
        "global_transformer.projection.weight": (
            "model.global_transformer.token_embedding_projection.weight"
        ),
        "decoder.patch_projection.weight": "model.local_decoder.patch_embedding_projection.weight",
        "decoder.norm.weight": "model.local_decoder.norm.weight",
        "decoder.head.weight": "lm_head.weight",
        "entropy_model.byte": "model.patcher.embed_tokens.weight",
        "entropy_model.norm.weight": "model.patcher.norm.weight",
        "entropy_model.head.weight": "model.patcher.lm_head.weight",
    },
    table="model.encoder_hash_tok_embedding.weight",
)
EMBEDDING, HEAD = NAMES.others["encoder.embedding.byte"], NAMES.others["decoder.head.weight"]
GENERATION = "generation_config.json"
COMPUTED = "rotary_emb.inv_freq"  # old versions stored it


def checkpoint_of(hf_model: Any) -> Checkpoint:
    """The weights of a ``BltForCausalLM`` and of its patcher, copied, under our names.

    Raises:
        UserError: a shape or option that this library does not have; names it.
    """
    where = "the transformers model"
    config = read_config(hf_model.config.to_dict(), where)
    held = Held({name: x.detach() for name, x in hf_model.state_dict().items()}, where)
    tensors = _renamed(held, config, where, tied=False)
    made = {
        name: torch.cat([held.tensors[piece.name] for piece in pieces])  # also copies
        for name, pieces in tensors.pieces.items()
    }
    return Checkpoint(where, "blt", config, Held(made, where))


def open_folder(folder: Path, data: dict[str, Any]) -> Checkpoint:
    """The model that ``save_pretrained`` wrote into a folder, with this config.

    Raises:
        UserError: a shape or option that this library does not have, or weights that do not fit.
    """
    config = read_config(data, f"{folder}/{CONFIG}")
    stored = Stored(folder)
    tied = data.get("tie_word_embeddings") is True
    return Checkpoint(str(folder), "blt", config, _renamed(stored, config, str(folder), tied))


def layout(found: Checkpoint) -> dict[str, tuple[dict[str, Any], Tensors]]:
    """JSON files and tensors to write, by subfolder.

    Raises:
        UserError: a model that ``transformers`` has no class for.
    """
    if found.kind != "blt":
        raise UserError(f"{found.where}: transformers has no {found.kind} model, only a BLT")
    config = write_config(found.config, found.where)
    pieces = to_theirs(mapping(found.config), _shares(found.config))
    tensors = Rearranged(found.tensors, pieces, found.where)
    config["dtype"] = widest(tensors)  # transformers reads all tensors as that
    files = {CONFIG: config, GENERATION: generation_config(), **tokenizer_files()}
    return {"": (files, tensors)}


def mapping(config: Config) -> Mapped:
    """Our names → the names there whose rows they hold."""
    return NAMES.mapping(skeleton(ByteLatentTransformer, config, "").state_dict(), tables=1)


def _shares(config: Config) -> Shares:
    """Of the global transformer, whose heads of queries may share keys and values."""
    name = "global_transformer.transformer"
    return qkv_shares(name, config.global_layers, config.global_heads, config.global_block)


def _renamed(theirs: Tensors, config: Config, where: str, tied: bool) -> Rearranged:
    """Their tensors under our names, checked against the config."""
    check_layers(where, theirs, *layers_of(config))
    mapped = mapping(config)
    known = {name for names in mapped.values() for name in names}
    found = {name: spec for name, spec in theirs.specs.items() if not name.endswith(COMPUTED)}
    refuse_unknown(where, found, known)
    if tied:  # one of the two is stored; of both, transformers takes the head
        mapped["encoder.embedding.byte"] = mapped["decoder.head.weight"] = (
            HEAD if HEAD in found else EMBEDDING,
        )
    tensors = Rearranged(theirs, from_theirs(mapped, _shares(config)), where)
    check_against(where, "blt", config, tensors)
    return tensors
