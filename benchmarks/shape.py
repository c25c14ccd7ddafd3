"""The benchmarks' shape, for both sides: 31M active parameters and 77M in hash tables."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from benchmarks.machine import ROOT
from blt.machine.precision import autocast
from blt.model.config import ByteTransformerConfig, Config
from blt.patching import lengths_to_starts
from blt.vocab import OFFSET

MEAN_PATCH_SIZE = 4.5  # bytes
CPU = torch.device("cpu")
CONFIG = Config()  # the library's default shape is the benchmark's
TINY = Config(
    local_dim=32, local_heads=2, encoder_ff_dim=48, decoder_layers=2, decoder_ff_dim=48,
    global_dim=64, global_heads=2, global_layers=2, global_ff_dim=96, hash_rows=211,
    entropy_model=ByteTransformerConfig(dim=32, heads=2, layers=1, ff_dim=48),
)  # fmt: skip


def paper(recipe: str) -> Config:
    """The shape of a recipe of the paper."""
    from blt.train.recipe import read_recipe  # late: the other side needs none of it

    model = read_recipe(ROOT / "recipes" / "paper" / f"{recipe}.toml", ()).model
    assert isinstance(model, Config)
    return model


def transformers_model(config: Config = CONFIG) -> Any:
    """``BltForCausalLM`` of the same shape, random weights from seed 0."""
    from transformers import BltConfig, BltForCausalLM

    c = config
    local = {
        "hidden_size": c.local_dim,
        "num_attention_heads": c.local_heads,
        "hidden_size_global": c.global_dim,
        "cross_attn_k": c.cross_attention_k,
    }
    assert c.entropy_model is not None
    torch.manual_seed(0)
    return BltForCausalLM(
        BltConfig(
            cross_attn_k=c.cross_attention_k,
            encoder_hash_byte_group_size=list(c.hash_ngram_sizes),
            encoder_hash_byte_group_vocab=c.hash_rows,
            local_attention_window_len=c.sliding_window,
            encoder_config={
                **local,
                "num_hidden_layers": c.encoder_layers,
                "intermediate_size": c.encoder_ff_dim,
                "cross_attn_all_layers": False,
            },
            decoder_config={
                **local,
                "num_hidden_layers": c.decoder_layers,
                "intermediate_size": c.decoder_ff_dim,
                "cross_attn_all_layers": True,
            },
            global_config={
                "hidden_size": c.global_dim,
                "num_attention_heads": c.global_heads,
                "num_hidden_layers": c.global_layers,
                "intermediate_size": c.global_ff_dim,
            },
            patcher_config={
                "hidden_size": c.entropy_model.dim,
                "num_attention_heads": c.entropy_model.heads,
                "num_hidden_layers": c.entropy_model.layers,
                "intermediate_size": c.entropy_model.ff_dim,
            },
        )
    )


def numerics(precision: str, device: torch.device = CPU) -> torch.autocast:
    """Autocast where ``precision`` is "bfloat16"; other precisions are the weights'."""
    return autocast(device, torch.bfloat16 if precision == "bfloat16" else torch.float32)


def calibrated_threshold(entropies: Tensor) -> float:
    """The quantile of entropies that cuts patches of 4.5 bytes on average."""
    return float(entropies.float().flatten().quantile(1 - 1 / MEAN_PATCH_SIZE))


def random_ids(batch: int, length: int, num_ids: int | None = None) -> Tensor:
    """[batch, length] int64 bytes, the same on both sides; with ``num_ids``, tokens of so many."""
    generator = torch.Generator().manual_seed(1)
    first, end = (OFFSET, OFFSET + 256) if num_ids is None else (0, num_ids)
    return torch.randint(first, end, (batch, length), generator=generator)


def random_patches(batch: int, length: int, mean: float = MEAN_PATCH_SIZE) -> Tensor:
    """Patch lengths [batch, P], ``mean`` bytes on average, equal in number as transformers wants.

    The first patch is BOS alone; each row sums to ``length``.
    """
    generator = torch.Generator().manual_seed(2)
    count = round(length / mean)
    rows = []
    for _ in range(batch):
        cuts = torch.randperm(length - 2, generator=generator)[: count - 2].sort().values + 2
        edges = torch.cat((torch.tensor([0, 1]), cuts, torch.tensor([length])))
        rows.append(torch.diff(edges))
    return torch.stack(rows)


def decisions(lengths: Tensor) -> list[Tensor]:
    """Patch lengths [batch, P] → per document [T + 1] bool; none opens after the last byte."""
    closed = torch.zeros(1, dtype=torch.bool)
    return [torch.cat((lengths_to_starts(row), closed)) for row in lengths]
