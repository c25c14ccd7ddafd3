"""Configs of ``transformers``' token models, and of ours: both ways."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from blt.checkpoint.layouts.transformers_config import rope_keys, rope_of
from blt.errors import UserError, require, require_whole
from blt.files.configs import from_dict
from blt.model.config import SPECIAL, TokenTransformerConfig

# What an absent key means.
COMMON: dict[str, Any] = {
    "rms_norm_eps": 1e-6,
    "rope_theta": 10000.0,
    "hidden_act": "silu",
    "num_key_value_heads": None,
    "head_dim": None,
    "sliding_window": None,
    "max_position_embeddings": 2048,
    "layer_types": None,
    "attention_bias": False,
    "mlp_bias": False,
    "quantization_config": None,
}
QWEN: dict[str, Any] = {
    "num_key_value_heads": 32,
    "use_sliding_window": False,
    "sliding_window": 4096,
    "max_window_layers": 28,
    "max_position_embeddings": 32768,
}
TYPES: dict[str, dict[str, Any]] = {
    "llama": {},
    "mistral": {
        "num_key_value_heads": 8,
        "sliding_window": 4096,
        "max_position_embeddings": 131072,
    },
    "qwen2": QWEN,
    "qwen3": {**QWEN, "head_dim": 128},
    "olmo2": {"rms_norm_eps": 1e-5},
}
# How a family's layers differ from Llama's, in our options.
BLOCKS: dict[str, dict[str, Any]] = {
    "qwen2": {"qkv_bias": True},
    "qwen3": {"qk_norm": "head"},
    "olmo2": {"qk_norm": "all", "norm": "after"},
}
SIZES = ("vocab_size", "hidden_size", "num_hidden_layers", "intermediate_size")
ONLY = {
    "hidden_act": "silu",
    "attention_bias": False,  # Qwen 2 has none on what attention gives, and has no such key
    "mlp_bias": False,
    "quantization_config": None,
}
EXPERTS = "its feed-forward is a mixture of experts"
NORMS_BOTH = "it has norms before and after attention and feed-forward, which scale by 1 + weight"
# Why a family that users will try does not fit.
OTHERS = {
    "olmo": "its norms subtract the mean and have no weights",
    "olmo3": "some of its layers see a window",
    "gemma": "its feed-forward has GELU, its norms scale by 1 + weight",
    "gemma2": "it has norms before and after attention and feed-forward, and caps scores",
    "gemma3_text": NORMS_BOTH,
    "gemma3": NORMS_BOTH,
    "mixtral": EXPERTS,
    "qwen2_moe": EXPERTS,
    "qwen3_moe": EXPERTS,
    "olmoe": EXPERTS,
    "qwen3_next": "most of its layers have linear attention",
    "phi3": "it stores queries, keys and values as one tensor",
    "smollm3": "some of its layers have no RoPE",
    "gpt2": "it has learned positions and norms that subtract the mean",
}


def read_config(data: dict[str, Any], where: str) -> TokenTransformerConfig:
    """Our config for that of a token model.

    ``vocab_size`` leaves room for our two special tokens, so that the embeddings have theirs.

    Raises:
        UserError: a family or an option whose layers are not ours, or a wrong type; names it.
    """
    kind = data.get("model_type")
    if not isinstance(kind, str) or kind not in TYPES:
        why = f" ({OTHERS[kind]})" if isinstance(kind, str) and kind in OTHERS else ""
        raise UserError(
            f"{where}: model_type {kind!r} is not supported{why}; known: {', '.join(TYPES)}, and "
            "token models of ours"
        )
    full = {**COMMON, **TYPES[kind], **data}
    for key in (*SIZES, "num_attention_heads", "max_position_embeddings"):
        require_whole(f"{where}: {key}", full.get(key), 1)
    for key, value in ONLY.items():
        require(
            full[key] == value,
            f"{where}: {key} {full[key]!r} is not supported, only {value}",
        )
    theta, scaling = rope_of(full, where)
    rotated = (full.get("rope_parameters") or full).get("partial_rotary_factor", 1.0)
    require(rotated == 1.0, f"{where}: partial_rotary_factor {rotated!r} is not supported, only 1")
    _check_window(full, where)
    plain = {
        "vocab_size": full["vocab_size"] - SPECIAL,
        "dim": full["hidden_size"],
        "heads": full["num_attention_heads"],
        "layers": full["num_hidden_layers"],
        "ff_dim": full["intermediate_size"],
        "rope_theta": theta,
        "rope_scaling": scaling,
        "norm_eps": full["rms_norm_eps"],
        "block": {**_heads(full, where), **BLOCKS.get(kind, {})},
    }
    return from_dict(TokenTransformerConfig, plain, where)


def _check_window(full: dict[str, Any], where: str) -> None:
    """Refuse layers that do not see all tokens before them."""
    window, context = full["sliding_window"], full["max_position_embeddings"]
    if window is None or full.get("use_sliding_window") is False:
        window = None
    else:
        require_whole(f"{where}: sliding_window", window, 1)
        window = None if window >= context else window
    types = full["layer_types"]
    if types is None and "max_window_layers" in full:  # so many layers, first, see everything
        require_whole(f"{where}: max_window_layers", full["max_window_layers"], 0)
        if full["max_window_layers"] >= full["num_hidden_layers"]:
            return
    if isinstance(types, Sequence) and not isinstance(types, str):
        others = [kind for kind in types if kind not in ("full_attention", "sliding_attention")]
        require(not others, f"{where}: layer_types {next(iter(others), '')!r} is not supported")
        if types and "sliding_attention" not in types:
            return
    require(
        window is None,
        f"{where}: sliding_window {window} is smaller than the context "
        f"(max_position_embeddings {context}); the global transformer sees all patches",
    )


def _heads(full: dict[str, Any], where: str) -> dict[str, Any]:
    """Heads of keys and values, and a head's features, where they are not Llama's first."""
    dim, heads = full["hidden_size"], full["num_attention_heads"]
    shared = heads if full["num_key_value_heads"] is None else full["num_key_value_heads"]
    require_whole(f"{where}: num_key_value_heads", shared, 1)
    require(
        heads % shared == 0,
        f"{where}: num_attention_heads {heads} is not a multiple of num_key_value_heads {shared}",
    )
    width = full["head_dim"]
    if width is not None:
        require_whole(f"{where}: head_dim", width, 1)
    return {
        "kv_heads": None if shared == heads else shared,
        "head_dim": None if width is None or width * heads == dim else width,
    }


def write_config(config: TokenTransformerConfig, where: str) -> dict[str, Any]:
    """The config.json of a ``LlamaForCausalLM`` for a token model of ours.

    Raises:
        UserError: layers that are not Llama's; names the option.
    """
    unlike = config.block.unlike_llama()
    require(
        unlike is None,
        f"{where}: a Llama of transformers is not written with block.{unlike}; keep the model in "
        "ours, --to blt",
    )
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "vocab_size": config.vocab_size + SPECIAL,
        "bos_token_id": config.vocab_size,
        "eos_token_id": config.vocab_size + 1,
        "hidden_size": config.dim,
        "intermediate_size": config.ff_dim,
        "num_hidden_layers": config.layers,
        "num_attention_heads": config.heads,
        "num_key_value_heads": config.heads,
        "hidden_act": "silu",
        "rms_norm_eps": config.norm_eps,
        **rope_keys(config.rope_theta, config.rope_scaling),
        "tie_word_embeddings": False,
    }
