"""An encoder begins by giving tokens' embeddings, as far as its width holds them."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import blt
from blt.byteify.embeddings import misfits, take_embeddings
from blt.byteify.start import with_layers_of
from blt.byteify.teacher import Teacher
from blt.checkpoint.open import open_token_model
from blt.evals.models import reader_of
from blt.lm import TokenLM
from blt.model.config import TokenTransformerConfig
from blt.tokens.tokenizer import ByteTokenizer
from shapes import tiny_config

TEXT = b"the theatre and the other thing, a cat and a hat. " * 8


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> Teacher:
    torch.manual_seed(0)
    shape = TokenTransformerConfig(vocab_size=300, dim=24, heads=2, layers=1, ff_dim=32)
    folder = tmp_path_factory.mktemp("source")
    TokenLM(shape, ByteTokenizer.train([TEXT], 290)).save(folder)
    return Teacher(reader_of(folder), open_token_model(folder), torch.device("cpu"))


@pytest.mark.parametrize(("dim", "k"), [(32, 1), (32, 2), (24, 1)], ids=["1", "2", "no projection"])
@torch.no_grad()
def test_a_patch_begins_as_the_embedding_of_its_token(teacher: Teacher, dim: int, k: int) -> None:
    """All that an encoder of that width can hold: without any training."""
    source = TokenTransformerConfig(vocab_size=300, dim=24, heads=2, layers=1, ff_dim=32)
    config = with_layers_of(
        tiny_config(
            local_dim=dim,
            cross_attention_k=k,
            hash_ngram_sizes=tuple(range(2, 9)),
            hash_rows=10007,
        ),
        source,
    )
    assert misfits(config) is None
    model = blt.BLT(config)
    texts = [blt.encode(TEXT)]
    take_embeddings(model, teacher, texts)
    lesson = teacher.lesson(texts)
    found = model.global_transformer.projection(model.encoder(lesson.packed)[1])
    wanted = lesson.embeddings
    rank = min(24, dim - 1 - dim // 8)
    kept = torch.linalg.svdvals(wanted).square()
    least = 1 - float(kept[:rank].sum() / kept.sum())
    off = (found - wanted).square().sum(1) / wanted.square().sum(1)
    assert float(off.median()) < least + 0.15
    assert float((off < least + 0.5).float().mean()) > 0.75


def test_shapes_that_cannot_hold_embeddings_are_named() -> None:
    source = TokenTransformerConfig(vocab_size=300, dim=64, heads=2, layers=1, ff_dim=32)
    changes: dict[str, dict[str, Any]] = {
        "cross_attention_k": {"local_dim": 32, "cross_attention_k": 2},
        "encoder_cross_attention": {"encoder_cross_attention": "none"},
        "hash_gate": {"hash_gate": True},
    }
    for name, change in changes.items():
        why = misfits(with_layers_of(tiny_config(**change), source))
        assert why is not None
        assert why.startswith(f"model.{name}: ")
