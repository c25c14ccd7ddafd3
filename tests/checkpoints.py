"""Random models, here and in transformers, that go through every option of the layouts."""

from __future__ import annotations

import random
from typing import Any

import torch

import blt

# Of few positions, so that a short text has pairs of features of all three kinds.
SCALING = blt.RopeScaling(
    factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0, original_max_position_embeddings=16
)


def random_config(seed: int) -> blt.Config:
    """The first few seeds go through every option, but for scaled RoPE."""
    r = random.Random(seed)
    heads, k = r.choice([2, 4]), (1, 2, 4)[seed % 3]
    local = heads * r.choice([8, 16])
    patcher = blt.ByteTransformerConfig(
        dim=r.choice([16, 32]),
        heads=2,
        layers=r.choice([1, 2]),
        ff_dim=r.choice([40, 48]),
        sliding_window=r.choice([16, 512]),
        rope_theta=r.choice([10000.0, 500000.0]),
    )
    return blt.Config(
        local_dim=local,
        local_heads=heads,
        encoder_layers=1 + seed % 3,
        encoder_ff_dim=r.choice([40, 56]),
        decoder_layers=1 + seed // 2 % 3,
        decoder_ff_dim=r.choice([40, 72]),
        sliding_window=r.choice([24, 512]),
        global_dim=k * local if seed % 2 else 48,
        global_heads=2,
        global_layers=r.choice([1, 2]),
        global_ff_dim=80,
        cross_attention_k=k,
        encoder_cross_attention="all" if seed // 2 % 2 else "last",
        decoder_cross_attention="first" if seed // 3 % 2 else "all",
        hash_ngram_sizes=r.choice([(3, 4, 5, 6, 7, 8), (2, 5), (3,)]),
        hash_functions=1 + seed % 3,
        hash_rows=r.choice([97, 211]),
        rope_theta=r.choice([10000.0, 500000.0]),
        norm_eps=r.choice([1e-5, 1e-6]),
        patching=blt.PatchingConfig(
            rule="byte" if seed % 4 == 3 else "entropy", threshold=r.choice([5.4, 5.45, 5.5])
        ),
        entropy_model=None if seed % 4 == 3 else patcher,
    )


def random_model(
    seed: int, dtype: torch.dtype = torch.float32, config: blt.Config | None = None
) -> blt.BLT:
    torch.manual_seed(seed)
    model = blt.BLT(config or random_config(seed))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "norm" in name:
                parameter.uniform_(0.5, 1.5)
    return model.to(dtype).eval()


def their_logits(model: Any, ids: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        return model(input_ids=ids[None], use_cache=False).logits[0]  # type: ignore[no-any-return]


def equal_weights(a: torch.nn.Module, b: torch.nn.Module) -> bool:
    first, second = a.state_dict(), b.state_dict()
    return first.keys() == second.keys() and all(
        tensor.dtype == second[name].dtype and torch.equal(tensor, second[name])
        for name, tensor in first.items()
    )


def text_ids(seed: int, length: int = 150) -> torch.Tensor:
    return blt.encode(random.Random(seed).randbytes(length))


def their_config(config: blt.Config, **changes: Any) -> Any:
    """A BltConfig as its users write it, not as we do."""
    from transformers import BltConfig

    c, p = config, config.entropy_model
    common = {"rms_norm_eps": c.norm_eps, "rope_parameters": rope(c.rope_theta)}
    local = {
        "hidden_size": c.local_dim,
        "num_attention_heads": c.local_heads,
        "cross_attn_k": c.cross_attention_k,
        "hidden_size_global": c.global_dim,
        **common,
    }
    patcher = (
        {}
        if p is None
        else {
            "patcher_config": {
                "hidden_size": p.dim,
                "num_attention_heads": p.heads,
                "num_hidden_layers": p.layers,
                "intermediate_size": p.ff_dim,
                "sliding_window": p.sliding_window,
                "rms_norm_eps": p.norm_eps,
                "rope_parameters": rope(p.rope_theta),
            }
        }
    )
    return BltConfig(
        patch_in_forward=p is not None,
        patching_mode=c.patching.rule,
        patching_threshold=c.patching.threshold,
        local_attention_window_len=c.sliding_window,
        cross_attn_k=c.cross_attention_k,
        encoder_hash_byte_group_size=list(c.hash_ngram_sizes),
        encoder_hash_byte_group_vocab=c.hash_rows,
        encoder_hash_byte_group_nb_functions=c.hash_functions,
        encoder_config={
            **local,
            "num_hidden_layers": c.encoder_layers,
            "intermediate_size": c.encoder_ff_dim,
            "cross_attn_all_layers": c.encoder_cross_attention == "all",
        },
        decoder_config={
            **local,
            "num_hidden_layers": c.decoder_layers,
            "intermediate_size": c.decoder_ff_dim,
            "cross_attn_all_layers": c.decoder_cross_attention == "all",
        },
        global_config={
            **common,
            "rope_parameters": rope(c.rope_theta, c.global_rope_scaling),
            "hidden_size": c.global_dim,
            "num_attention_heads": c.global_heads,
            "num_hidden_layers": c.global_layers,
            "intermediate_size": c.global_ff_dim,
        },
        **patcher,
        **changes,
    )


def rope(theta: float, scaling: blt.RopeScaling | None = None) -> dict[str, Any]:
    kind = {"rope_type": "default"} if scaling is None else {"rope_type": "llama3", **vars(scaling)}
    return {**kind, "rope_theta": theta}
