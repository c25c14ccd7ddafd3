"""Random token models of transformers whose layers ours can have."""

from __future__ import annotations

import random
from typing import Any

import torch
from torch import Tensor

from checkpoints import SCALING, rope

FAMILIES = ("llama", "mistral", "qwen2", "qwen3", "olmo2")


def their_model(seed: int, kind: str, **changes: Any) -> Any:
    """A random token model of transformers, of one of the FAMILIES."""
    r = random.Random(seed)
    heads = r.choice([2, 4])
    shape = {
        "vocab_size": r.choice([17, 50]),
        "hidden_size": heads * r.choice([4, 8, 10]),
        "num_hidden_layers": r.choice([1, 3]),
        "intermediate_size": r.choice([24, 40]),
        "num_attention_heads": heads,
        "num_key_value_heads": r.choice([1, heads // 2, heads]),
        "rms_norm_eps": r.choice([1e-5, 1e-6]),
        "rope_parameters": rope(r.choice([1e4, 5e5]), SCALING if seed % 4 == 1 else None),
        "tie_word_embeddings": r.random() < 0.5,
    }
    if kind == "qwen3" or (kind in ("llama", "mistral") and seed % 2):
        shape["head_dim"] = r.choice([6, 8, 16])
    shape |= changes
    import transformers

    classes = {
        "llama": (transformers.LlamaConfig, transformers.LlamaForCausalLM),
        "mistral": (transformers.MistralConfig, transformers.MistralForCausalLM),
        "qwen2": (transformers.Qwen2Config, transformers.Qwen2ForCausalLM),
        "qwen3": (transformers.Qwen3Config, transformers.Qwen3ForCausalLM),
        "olmo2": (transformers.Olmo2Config, transformers.Olmo2ForCausalLM),
    }
    config_class, model_class = classes[kind]
    if kind == "mistral":
        shape = {"sliding_window": None, **shape}
    if kind == "olmo2":  # whose defaults are ids of a larger vocabulary
        shape = {"pad_token_id": 0, "eos_token_id": 1, **shape}
    torch.manual_seed(seed)
    model = model_class(config_class(**shape)).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "norm" in name:
                parameter.uniform_(0.5, 1.5)
            else:
                parameter.normal_(std=parameter.shape[-1] ** -0.5)
    return model


def close(ours: Tensor, theirs: Tensor) -> bool:
    return bool((ours - theirs).abs().max() <= 1e-4 * theirs.abs().max())
