"""What a model prints as is three lines that say what it is."""

from __future__ import annotations

import blt
from blt.lm import TokenLM
from blt.model.config import TokenTransformerConfig
from blt.tokens.tokenizer import ByteTokenizer
from shapes import random_blt


def test_every_kind_of_model_prints_as_three_lines() -> None:
    lm = random_blt()
    first, second, third = repr(lm).splitlines()
    total = sum(p.numel() for p in lm.parameters())
    tables = lm.encoder.embedding.ngram.numel()
    assert first.startswith(
        f"BLT: {total / 1e3:.1f}k parameters, {tables / 1e3:.1f}k in hash tables"
    )
    assert "in its entropy model" in first
    assert second == "encoder 1 × 32, global 2 × 64, decoder 2 × 32, window 64"
    assert third == f"patches: {lm.patcher.describe()}; float32 on cpu"
    assert lm.patcher.config.rule in third
    byte = blt.ByteLM(blt.ByteTransformerConfig(dim=16, heads=2, layers=3, ff_dim=16))
    assert repr(byte).splitlines()[1:] == ["3 layers of 16, window 512", "bytes; float32 on cpu"]
    shape = TokenTransformerConfig(vocab_size=300, dim=16, heads=2, layers=1, ff_dim=16)
    token = TokenLM(shape, ByteTokenizer.train([b"the other thing " * 9], 300))
    assert repr(token).splitlines()[2] == "302 tokens; float32 on cpu"
