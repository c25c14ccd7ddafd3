"""Configs of ``transformers``' Llama and Mistral models, and of our token models: both ways."""

from __future__ import annotations

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
    "attention_bias": False,
    "mlp_bias": False,
    "quantization_config": None,
}
TYPES: dict[str, dict[str, Any]] = {
    "llama": {},
    "mistral": {
        "num_key_value_heads": 8,
        "sliding_window": 4096,
        "max_position_embeddings": 131072,
    },
}
SIZES = ("vocab_size", "hidden_size", "num_hidden_layers", "intermediate_size")
ONLY = {
    "hidden_act": "silu",
    "attention_bias": False,
    "mlp_bias": False,
    "quantization_config": None,
}
NORMS_AFTER = "it has norms after attention and feed-forward, and norms of queries and keys"
# Why a family that users will try does not fit.
OTHERS = {
    "qwen2": "its queries, keys and values have biases",
    "qwen3": "it has norms of queries and keys",
    "olmo": "its norms subtract the mean and have no weights",
    "olmo2": NORMS_AFTER,
    "olmo3": NORMS_AFTER,
    "gemma": "its feed-forward has GELU, its norms scale by 1 + weight",
    "gemma2": "it has norms after attention and feed-forward, and caps attention's scores",
    "gemma3_text": NORMS_AFTER,
    "mixtral": "its feed-forward is a mixture of experts",
    "phi3": "it stores queries, keys and values as one tensor",
    "smollm3": "some of its layers have no RoPE",
    "gpt2": "it has learned positions and norms that subtract the mean",
}


def read_config(data: dict[str, Any], where: str) -> tuple[TokenTransformerConfig, int]:
    """Our config for that of a Llama or Mistral model, and its number of key and value heads.

    ``vocab_size`` leaves room for our two special tokens, so that the embeddings have theirs.

    Raises:
        UserError: a family or an option whose layers are not ours, or a wrong type; names it.
    """
    kind = data.get("model_type")
    if kind not in TYPES:
        why = f" ({OTHERS[kind]})" if kind in OTHERS else ""
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
    plain = {
        "vocab_size": full["vocab_size"] - SPECIAL,
        "dim": full["hidden_size"],
        "heads": full["num_attention_heads"],
        "layers": full["num_hidden_layers"],
        "ff_dim": full["intermediate_size"],
        "rope_theta": theta,
        "rope_scaling": scaling,
        "norm_eps": full["rms_norm_eps"],
    }
    config = from_dict(TokenTransformerConfig, plain, where)
    _check_window(full, where)
    return config, _key_value_heads(full, config, where)


def _check_window(full: dict[str, Any], where: str) -> None:
    window, context = full["sliding_window"], full["max_position_embeddings"]
    if window is None:
        return
    require_whole(f"{where}: sliding_window", window, 1)
    require(
        window >= context,
        f"{where}: sliding_window {window} is smaller than the context "
        f"(max_position_embeddings {context}); the global transformer sees all patches",
    )


def _key_value_heads(full: dict[str, Any], config: TokenTransformerConfig, where: str) -> int:
    count = full["num_key_value_heads"]
    count = config.heads if count is None else count
    require_whole(f"{where}: num_key_value_heads", count, 1)
    require(
        config.heads % count == 0,
        f"{where}: num_attention_heads {config.heads} is not a multiple of num_key_value_heads "
        f"{count}",
    )
    head_dim = config.dim // config.heads
    require(
        full["head_dim"] in (None, head_dim),
        f"{where}: head_dim {full['head_dim']!r} is not supported, only hidden_size / "
        f"num_attention_heads = {head_dim}",
    )
    return int(count)


def write_config(config: TokenTransformerConfig) -> dict[str, Any]:
    """The config.json of a ``LlamaForCausalLM`` for a token model of ours."""
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
