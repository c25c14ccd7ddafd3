"""The FLOP counter against every value that is published or that follows from one."""

import dataclasses

import pytest

from blt.evals.flops import byte_transformer_flops, flops_per_byte, transformer_flops
from blt.model.config import ByteTransformerConfig, Config

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
