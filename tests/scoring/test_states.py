"""Hidden states are what the modules give when they are run by hand, for every kind of model."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

import blt
from blt.lm import TokenLM
from blt.model.config import TokenTransformerConfig
from blt.model.layers import Transformer
from blt.patching.views import starts_to_ids
from blt.scoring.states import BLTStates, LayerStates
from blt.tokens.tokenizer import ByteTokenizer
from shapes import random_blt

TEXTS = [b"", b"a", "The old man and the sé".encode(), b"\xff\x00" * 20]
SHAPE = blt.ByteTransformerConfig(dim=16, heads=2, layers=3, ff_dim=16, sliding_window=8)


@contextmanager
def watched(transformer: Transformer) -> Iterator[list[Tensor]]:
    """What each layer gives, seen by PyTorch's own hooks."""
    found: list[Tensor] = []
    hooks = [
        layer.register_forward_hook(lambda _, __, out: found.append(out[0] + out[1]))
        for layer in transformer.layers
    ]
    try:
        yield found
    finally:
        for hook in hooks:
            hook.remove()


def same(a: Tensor, b: Tensor) -> bool:
    return torch.allclose(a, b, atol=1e-6)


@pytest.mark.parametrize("rule", ["entropy", "space", "learned"])
@pytest.mark.parametrize("text", TEXTS)
def test_states_of_a_blt_are_those_of_its_modules(rule: str, text: bytes) -> None:
    lm = random_blt(rule)
    found = lm.hidden_states(text)
    assert isinstance(found, BLTStates)
    with (
        watched(lm.encoder.transformer) as encoder,
        watched(lm.global_transformer.transformer) as patches,
        watched(lm.decoder.transformer) as decoder,
    ):
        logits = lm.logits(blt.encode(text))
    for layers, by_hand in (
        (found.encoder, encoder),
        (found.patches, patches),
        (found.decoder, decoder),
    ):
        assert len(layers) == 1 + len(by_hand)
        assert all(same(a, b) for a, b in zip(layers[1:], by_hand, strict=True))
    assert same(lm.decoder.head(found.final), logits)
    cut = lm.patch(text)
    assert torch.equal(found.ids, blt.encode(text))
    assert torch.equal(found.patch_ids, starts_to_ids(cut.starts))
    assert [len(layer) for layer in found.patches] == [len(cut.lengths)] * 3
    assert found.patches[0].shape[1] == lm.config.global_dim
    assert torch.equal(found.decoder[0], found.encoder[-1])


@given(st.lists(st.binary(max_size=40), min_size=1, max_size=4))
@settings(max_examples=10)
def test_a_list_has_the_states_of_each_alone(lm: blt.BLT, texts: list[bytes]) -> None:
    for text, found in zip(texts, lm.hidden_states(texts), strict=True):
        alone = lm.hidden_states(text)
        assert isinstance(found, BLTStates)
        assert isinstance(alone, BLTStates)
        assert torch.equal(found.decoder_patch_ids, alone.decoder_patch_ids)
        for a, b in zip(found.decoder + found.patches, alone.decoder + alone.patches, strict=True):
            assert torch.allclose(a, b, rtol=1e-4, atol=2e-5)


def token_lm() -> TokenLM:
    tokenizer = ByteTokenizer.train([b"the theatre and the other thing " * 20], 300)
    shape = TokenTransformerConfig(vocab_size=300, dim=16, heads=2, layers=2, ff_dim=32)
    return TokenLM(shape, tokenizer).eval()


@pytest.mark.parametrize("kind", ["byte", "token"])
def test_states_of_a_plain_transformer_are_those_of_its_modules(kind: str) -> None:
    torch.manual_seed(0)
    lm = blt.ByteLM(SHAPE).eval() if kind == "byte" else token_lm()
    text = b"the other theatre"
    found = lm.hidden_states(text)
    assert isinstance(found, LayerStates)
    ids = lm.ids_of(text)
    with watched(lm.transformer) as layers, torch.no_grad():
        logits = lm.packed_logits([ids])
    assert torch.equal(found.ids, ids)
    assert all(same(a, b) for a, b in zip(found.layers[1:], layers, strict=True))
    assert same(lm.head(found.final), logits)


@pytest.mark.parametrize("features", [None, 24])
def test_gated_ngrams_come_after_the_first_layer(features: int | None) -> None:
    torch.manual_seed(0)
    gate: dict[str, Any] = {"hash_gate": True, "hash_dim": features}
    shape = blt.ByteTransformerConfig(
        dim=16, heads=2, layers=2, ff_dim=16, hash_ngram_sizes=(2, 3), hash_rows=50, **gate
    )
    lm = blt.ByteLM(shape).eval()
    found = lm.hidden_states(b"some text")
    assert isinstance(found, LayerStates)
    assert same(found.layers[0], lm.byte[found.ids])
    with watched(lm.transformer) as layers:
        lm.logits(found.ids)
    assert not same(found.layers[1], layers[0])  # the gate has added to it
    assert same(found.layers[2], layers[1])
