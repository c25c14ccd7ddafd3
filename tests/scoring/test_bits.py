"""Bits per byte are those of the text, however it is packed, and beside well-known compressors."""

from __future__ import annotations

import gzip
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import blt
from blt.evals.compressors import compressors
from blt.lm import TokenLM
from blt.model.config import TokenTransformerConfig
from blt.scoring.bits import bits_per_byte, piece_bits
from blt.texts.pieces import choose
from blt.tokens.tokenizer import ByteTokenizer
from shapes import TINY, random_blt
from texts import MULTILINGUAL

DOCUMENTS = [b"some text " * 30, b"other" * 11, bytes(range(256)), b"x"]


@pytest.fixture(scope="module")
def lm() -> blt.ByteLM:
    torch.manual_seed(0)
    return blt.ByteLM(blt.ByteTransformerConfig(dim=16, heads=2, layers=1, ff_dim=16))


def test_packing_changes_nothing(lm: blt.ByteLM) -> None:
    total = sum(lm.bits_per_byte(text, 50) * len(text) for text in DOCUMENTS)
    together = bits_per_byte(lm, DOCUMENTS, context_bytes=50)
    assert together == pytest.approx(total / sum(map(len, DOCUMENTS)), rel=1e-5)


def test_a_model_that_knows_nothing_needs_the_logarithm_of_the_vocabulary(lm: blt.ByteLM) -> None:
    blank = blt.ByteLM(lm.config)
    torch.nn.init.zeros_(blank.head.weight)
    assert bits_per_byte(blank, DOCUMENTS) == pytest.approx(math.log2(260), rel=1e-5)


def test_a_limit_takes_the_same_bytes_in_any_order(lm: blt.ByteLM) -> None:
    chosen = choose(DOCUMENTS, 100)
    assert sum(map(len, chosen)) == 100
    assert chosen == choose(DOCUMENTS[::-1], 100)
    limited = bits_per_byte(lm, DOCUMENTS[::-1], max_bytes=100)
    assert limited == pytest.approx(bits_per_byte(lm, chosen), rel=1e-5)


@given(st.lists(st.binary(max_size=60), max_size=8))
@settings(max_examples=20)
def test_every_piece_is_worth_what_it_is_worth_alone(pieces: list[bytes]) -> None:
    torch.manual_seed(0)
    shape = TokenTransformerConfig(vocab_size=300, dim=16, heads=2, layers=1, ff_dim=32)
    tokens = TokenLM(shape, ByteTokenizer.train([MULTILINGUAL], 300)).eval()
    for model in (random_blt(), blt.ByteLM(TINY).eval(), tokens):
        alone = [model.bits_per_byte(piece) * len(piece) for piece in pieces]
        assert piece_bits(model, pieces) == pytest.approx(alone, rel=1e-4, abs=1e-4)


def test_pieces_are_read_together(lm: blt.ByteLM, monkeypatch: pytest.MonkeyPatch) -> None:
    forwards, packed = [], lm.packed_logits
    monkeypatch.setattr(lm, "packed_logits", lambda ids: forwards.append(ids) or packed(ids))
    found = piece_bits(lm, [*DOCUMENTS, b""])
    assert len(forwards) == 1
    assert found[-1] == 0.0
    assert sum(found) / sum(map(len, DOCUMENTS)) == pytest.approx(bits_per_byte(lm, DOCUMENTS))


def test_no_text_is_no_bits(lm: blt.ByteLM) -> None:
    assert bits_per_byte(lm, []) == 0.0
    assert set(compressors([]).values()) == {0.0}


def test_bfloat16_is_near(lm: blt.ByteLM) -> None:
    half = bits_per_byte(lm, DOCUMENTS, dtype=torch.bfloat16)
    assert half == pytest.approx(bits_per_byte(lm, DOCUMENTS), rel=0.02)


def test_compressors_see_all_documents_as_one_file() -> None:
    found = compressors(DOCUMENTS)
    data = b"".join(DOCUMENTS)
    assert list(found) == ["gzip -9", "bzip2 -9", "xz -9"]
    assert found["gzip -9"] == 8 * len(gzip.compress(data, 9, mtime=0)) / len(data)
