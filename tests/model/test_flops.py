"""The FLOP counter against every value that is published or that follows from one."""

import dataclasses

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

import blt
from blocks import BLOCKS
from blt.lm import LanguageModel, TokenLM
from blt.model.config import ByteTransformerConfig, Config, TokenTransformerConfig
from blt.model.flops import (
    attention_flops,
    byte_transformer_flops,
    flops_per_byte,
    token_transformer_flops,
    transformer_flops,
)
from blt.model.kernels.blocks import ALIGNED, BLOCK
from blt.patching import PatchingConfig

CONTEXT = 8192  # bytes
PATCHER = ByteTransformerConfig(dim=768, heads=12, layers=14, ff_dim=2048)
BLT_1B = Config(
    local_dim=1024,
    local_heads=16,
    encoder_layers=1,
    encoder_ff_dim=2730,
    decoder_layers=9,
    decoder_ff_dim=2816,
    global_dim=2048,
    global_heads=16,
    global_layers=25,
    global_ff_dim=5632,
    cross_attention_k=2,
    entropy_model=PATCHER,
)
BLT_8B = Config(
    local_dim=1280,
    local_heads=20,
    encoder_layers=1,
    encoder_ff_dim=3413,
    decoder_layers=6,
    decoder_ff_dim=3413,
    global_dim=4096,
    global_heads=32,
    global_layers=32,
    global_ff_dim=10923,
    cross_attention_k=4,
    encoder_cross_attention="all",
    entropy_model=PATCHER,
)
BLT_6_6B = dataclasses.replace(BLT_8B, encoder_layers=3)  # the paper's runs at patch size 8


def test_paper_6_6b_model_at_patch_size_8_is_2_1e9():
    flops = flops_per_byte(BLT_6_6B, 8, CONTEXT, ff="paper")
    assert flops.total == pytest.approx(2.10e9, rel=0.002)
    assert f"{flops_per_byte(BLT_6_6B, 8, CONTEXT).total:.1e}" == "2.1e+09"


@pytest.mark.parametrize("patch_size", [6, 8])
def test_paper_400m_row_is_near_its_published_3_1e8(patch_size):
    encoder_layers = 3 if patch_size == 8 else 1
    # Global width 1280 is not a multiple of 768; only the count matters here.
    shape = dataclasses.replace(
        BLT_1B,
        local_dim=768,
        local_heads=12,
        encoder_layers=encoder_layers,
        encoder_cross_attention="all",
        decoder_layers=7,
        global_dim=1280,
        global_heads=10,
        global_layers=24,
    )
    total = flops_per_byte(shape, patch_size, CONTEXT, ff="paper").total
    assert total == pytest.approx(3.1e8, rel=0.025)


@pytest.mark.parametrize(
    ("config", "patch_size", "mflop"),
    [
        (BLT_1B, 4.5, (600.7, 26.2, 236.5, 6.1, 54.6, 924.0)),
        (BLT_1B, 6, (442.7, 26.2, 236.5, 5.6, 50.4, 761.4)),
        (BLT_1B, 8, (327.7, 26.2, 236.5, 5.2, 47.2, 642.9)),
        (BLT_8B, 4.5, (2969, 40.6, 244.5, 12.4, 74.4, 3341)),
        (BLT_8B, 6, (2207, 40.6, 244.5, 10.9, 65.6, 2569)),
        (BLT_6_6B, 8, (1644, 121.9, 244.5, 29.5, 59.1, 2099)),
    ],
)
def test_parts(config, patch_size, mflop):
    flops = flops_per_byte(config, patch_size, CONTEXT, ff="paper")
    parts = (
        flops.global_,
        flops.encoder,
        flops.decoder,
        flops.encoder_cross,
        flops.decoder_cross,
        flops.total,
    )
    assert [part / 1e6 for part in parts] == pytest.approx(mflop, rel=3e-4, abs=0.06)


def test_entropy_model_is_reported_apart():
    flops = flops_per_byte(BLT_1B, 4.5, CONTEXT, ff="paper")
    assert flops.entropy_model / 1e6 == pytest.approx(209.6, abs=0.05)
    assert flops.entropy_model == byte_transformer_flops(PATCHER)  # 2048 is 8/3 of 768
    assert flops.total_with_entropy_model == flops.total + flops.entropy_model
    without = dataclasses.replace(
        BLT_1B, entropy_model=None, patching=dataclasses.replace(BLT_1B.patching, rule="space")
    )
    assert flops_per_byte(without, 4.5, CONTEXT, ff="paper").total_with_entropy_model == flops.total


def test_llama_3_8b_token_model_matches_blt_8b_at_equal_compression():
    # The paper's FLOP-matched pair: 4.4 bytes a token, and patches of 4.5 bytes.
    token_model = transformer_flops(4096, 32, CONTEXT / 4.4, vocab=128_256) / 4.4
    assert token_model == pytest.approx(3.28e9, rel=0.002)
    assert flops_per_byte(BLT_8B, 4.5, CONTEXT, ff="paper").total == pytest.approx(
        token_model, rel=0.02
    )


def test_actual_widths_are_counted_by_default():
    paper, actual = (flops_per_byte(BLT_1B, 4.5, CONTEXT, ff=ff) for ff in ("paper", "actual"))
    extra = 6 * 2048 * (5632 - 8 / 3 * 2048) * 25 / 4.5
    assert actual.global_ - paper.global_ == pytest.approx(extra)
    assert 1 < actual.total / paper.total < 1.02
    assert actual.training == 3 * actual.total


def test_a_window_is_never_longer_than_the_text():
    assert byte_transformer_flops(PATCHER, 100) < byte_transformer_flops(PATCHER, 512)
    assert byte_transformer_flops(PATCHER, 100_000) == byte_transformer_flops(PATCHER)


@pytest.mark.parametrize("patch_size", [0, 0.5, 9000, float("nan")])
def test_impossible_patch_size(patch_size):
    with pytest.raises(ValueError, match="patch_size"):
        flops_per_byte(BLT_1B, patch_size, CONTEXT)


# --- against PyTorch's counter -------------------------------------------------------------------
#
# What a forward computes beyond the paper's count: whole blocks of attention, of which the mask
# hides a part (the paper counts half a window per byte), products that pool and resize patches, and
# four special ids.

LENGTH = 2048  # ids of one document


def block_attention(dim: int, window: int | None, length: int) -> int:
    """Of one layer: blocks of queries times all keys from the first that the block sees."""
    keys = [(min(BLOCK, length - at), min(at, window or at)) for at in range(0, length, BLOCK)]
    return sum(4 * dim * -(-rows // ALIGNED) * ALIGNED * (lead + rows) for rows, lead in keys)


def counted(model: LanguageModel, documents: list[torch.Tensor]) -> int:
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model.packed_logits(documents)
    return counter.get_total_flops()


def random_ids(values: int) -> torch.Tensor:
    return torch.randint(4, values, (LENGTH,), generator=torch.Generator().manual_seed(0))


TABLES = {"hash_ngram_sizes": (2, 3), "hash_rows": 50}
GATED = TABLES | {"hash_gate": True}
HASHED = [
    {},
    TABLES,
    GATED,
    GATED | {"hash_dim": 96},
]  # look-ups cost nothing, a gate's products do


@pytest.mark.parametrize("tables", HASHED)
@pytest.mark.parametrize("window", [256, 512])
def test_a_byte_transformer_costs_what_pytorch_counts(window: int, tables: dict):
    shape = ByteTransformerConfig(
        dim=64, heads=2, layers=3, ff_dim=172, sliding_window=window, **tables
    )
    ours = byte_transformer_flops(shape, LENGTH) * LENGTH
    ours -= attention_flops(64, 3, window) * LENGTH
    ours += 3 * block_attention(64, window, LENGTH) + 2 * 64 * 4 * LENGTH
    assert counted(blt.ByteLM(shape), [random_ids(260)]) == pytest.approx(ours, rel=0.001)


@pytest.mark.parametrize("tables", HASHED)
def test_a_token_transformer_costs_what_pytorch_counts(tables: dict):
    shape = TokenTransformerConfig(vocab_size=500, dim=64, heads=2, layers=3, ff_dim=172, **tables)
    token_size = 4.0
    per_byte = token_transformer_flops(shape, token_size, round(LENGTH * token_size))
    ours = per_byte * token_size * LENGTH - attention_flops(64, 3, LENGTH) * LENGTH
    ours += 3 * block_attention(64, None, LENGTH) + 2 * 64 * 2 * LENGTH  # BOS and EOS
    assert counted(TokenLM(shape), [random_ids(500)]) == pytest.approx(ours, rel=0.001)


@pytest.mark.parametrize("name", BLOCKS)
def test_other_families_layers_cost_what_pytorch_counts(name: str):
    """Fewer keys and values, and heads of another width; norms and biases cost nothing."""
    block = BLOCKS[name]
    shape = TokenTransformerConfig(
        vocab_size=500, dim=64, heads=4, layers=3, ff_dim=172, block=block
    )
    per_byte = token_transformer_flops(shape, 4.0, LENGTH * 4)
    wide = 4 * block.features(64, 4)
    ours = per_byte * 4 * LENGTH - attention_flops(wide, 3, LENGTH) * LENGTH
    ours += 3 * block_attention(wide, None, LENGTH) + 2 * 64 * 2 * LENGTH
    assert counted(TokenLM(shape), [random_ids(500)]) == pytest.approx(ours, rel=0.001)


@pytest.mark.parametrize(("where", "features"), [("last", None), ("none", None), ("none", 40)])
def test_a_blt_costs_what_pytorch_counts_with_its_entropy_model(where: str, features: int | None):
    k, dim, heads, layers, wide, stride = 2, 64, 2, 3, 192, 4
    patcher = ByteTransformerConfig(dim=64, heads=2, layers=2, ff_dim=172, sliding_window=256)
    config = Config(
        local_dim=dim, local_heads=heads, encoder_layers=1, encoder_ff_dim=172,
        decoder_layers=layers, decoder_ff_dim=172, sliding_window=256, global_dim=wide,
        global_heads=4, global_layers=4, global_ff_dim=512, cross_attention_k=k, hash_rows=100,
        encoder_cross_attention=where, decoder_cross_attention="all" if where == "last" else "none",
        patching=PatchingConfig(rule="static", stride=stride), entropy_model=patcher,
        hash_gate=where == "none", hash_dim=features,
    )  # fmt: skip
    ids = random_ids(260)
    model = blt.BLT(config)
    patches = len(model.patch(ids).lengths)
    flops = flops_per_byte(config, LENGTH / patches, LENGTH)
    slices = k if config.decoder_crosses else 1
    ours = flops.total * LENGTH + 2 * dim * 4 * LENGTH
    # attention, in whole blocks
    ours += (1 + layers) * (block_attention(dim, 256, LENGTH) - 2 * dim * 257 * LENGTH)
    ours += 4 * (block_attention(wide, None, patches) - 2 * wide * (patches + 1) * patches)
    # pooling and resizing
    ours += patches * 2 * dim * (k * dim + k * wide + slices * wide)
    # cross-attention: the paper counts scores and sums of each query and key, and PyTorch does not
    # see into an operator of ours
    ours -= config.encoder_crosses * k * 2 * dim * (LENGTH + patches)
    ours -= config.decoder_crosses * 2 * dim * (k + 1) * LENGTH
    assert counted(model, [ids]) == pytest.approx(ours, rel=0.001)
    assert model.entropy_model is not None
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model.entropy_model.document_entropies([ids])
    entropies = flops.entropy_model * LENGTH + 2 * 64 * 4 * LENGTH
    entropies += 2 * (block_attention(64, 256, LENGTH) - 2 * 64 * 257 * LENGTH)
    assert counter.get_total_flops() == pytest.approx(entropies, rel=0.001)


def test_at_the_released_shape_the_papers_count_leaves_out_less_than_three_percent():
    """Of 1B with patches of 4.5 bytes; the table in docs/evaluation.md."""
    flops, patches = flops_per_byte(BLT_1B, 4.5, CONTEXT), round(CONTEXT / 4.5)
    windows = 10 * (block_attention(1024, 512, CONTEXT) / CONTEXT - 2 * 1024 * 513)
    halves = block_attention(2048, None, patches) - 2 * 2048 * (patches + 1) * patches
    resizing = 2 * 1024 * (2 * 1024 + 2 * 2048) / 4.5
    indicators = 10 * 2 * 4 * 1024 * 16
    extra = [windows, 25 * halves / CONTEXT, resizing, indicators]
    assert [x / flops.total for x in extra] == pytest.approx([0.016, 0.003, 0.003, 0.001], abs=5e-4)
    assert sum(extra) / flops.total < 0.03
