"""A text's vector is pooled from states of its own patches, bytes or tokens, and nothing else."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

import blt
from blt.errors import UserError
from blt.scoring import embedding
from blt.scoring.states import BLTStates
from scoring.test_states import SHAPE, TEXTS, token_lm

POOLS = {"mean": lambda x: x.mean(0), "max": lambda x: x.max(0).values, "last": lambda x: x[-1]}


def states(lm: blt.BLT, text: bytes) -> BLTStates:
    found = lm.hidden_states(text)
    assert isinstance(found, BLTStates)
    return found


@pytest.mark.parametrize("pool", POOLS)
@pytest.mark.parametrize("level", ["patch", "byte"])
@pytest.mark.parametrize("layer", [None, 0, 1, 2])
@pytest.mark.parametrize("text", TEXTS[1:])
def test_a_vector_is_its_pooled_states(
    lm: blt.BLT, pool: str, level: str, layer: int | None, text: bytes
) -> None:
    all_states = states(lm, text)
    layers = all_states.patches if level == "patch" else all_states.decoder
    rows = layers[1 if layer is None else layer]  # by default half of two
    found = lm.embed(text, level=level, pool=pool, layer=layer)
    assert torch.allclose(found, POOLS[pool](rows[1:]), atol=1e-5)
    every = lm.embed(text, level=level, pool=None, layer=layer)
    assert torch.allclose(every, rows[1:], atol=1e-5)
    length = len(text) if level == "byte" else len(lm.patch(text).lengths) - 1
    assert len(every) == length


@given(st.lists(st.binary(max_size=60), max_size=6))
@settings(max_examples=10)
def test_a_vector_does_not_depend_on_its_batch(lm: blt.BLT, texts: list[bytes]) -> None:
    together = lm.embed(texts)
    assert isinstance(together, Tensor)
    assert together.shape == (len(texts), lm.config.global_dim)
    assert together.dtype == torch.float32
    for text, vector in zip(texts, together, strict=True):
        assert torch.allclose(vector, lm.embed(text), rtol=1e-4, atol=2e-5)


def test_many_texts_are_read_in_groups_of_bounded_size(
    lm: blt.BLT, monkeypatch: pytest.MonkeyPatch
) -> None:
    texts = [b"text number %d" % n for n in range(20)]
    expected = lm.embed(texts)
    sizes: list[int] = []
    lay_out = type(lm).lay_out

    def counted(self: blt.BLT, documents: list[Tensor]) -> object:
        sizes.append(sum(map(len, documents)))
        return lay_out(self, documents)

    monkeypatch.setattr(type(lm), "lay_out", counted)
    monkeypatch.setattr(embedding, "TOGETHER", 50)
    assert torch.allclose(lm.embed(texts), expected, rtol=1e-4, atol=2e-5)
    assert len(sizes) > 1
    assert max(sizes) <= 50


def test_normalised_vectors_have_length_one_and_the_same_direction(lm: blt.BLT) -> None:
    plain, unit = lm.embed([b"one", b""]), lm.embed([b"one", b""], normalize=True)
    assert torch.allclose(unit.norm(dim=-1), torch.ones(2))
    assert torch.allclose(unit * plain.norm(dim=-1, keepdim=True), plain, atol=1e-5)


def test_an_empty_text_has_the_vector_of_its_bos_and_no_rows(lm: blt.BLT) -> None:
    assert torch.allclose(lm.embed(b""), states(lm, b"").patches[1][0], atol=1e-6)
    assert lm.embed(b"", pool=None).shape == (0, lm.config.global_dim)


@pytest.mark.parametrize("kind", ["byte", "token"])
def test_models_without_patches_have_vectors_too(kind: str) -> None:
    torch.manual_seed(0)
    lm = blt.ByteLM(SHAPE).eval() if kind == "byte" else token_lm()
    text = b"the other theatre"
    rows = lm.embed(text, pool=None)
    assert len(rows) == len(lm.ids_of(text)) - 1
    assert torch.allclose(lm.embed(text, level=kind), rows.mean(0), atol=1e-6)
    with pytest.raises(UserError, match=f"level 'patch': a {kind} model has {kind}"):
        lm.embed(text, level="patch")


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ({"level": "word"}, "level 'word'.*patch and byte"),
        ({"pool": "sum"}, "pool 'sum'.*mean, max, last"),
        ({"layer": 3}, "layer 3.*to 2"),
        ({"layer": -1}, "layer -1"),
    ],
)
def test_what_there_is_not_is_refused_with_what_there_is(
    lm: blt.BLT, how: dict[str, object], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        lm.embed("x", **how)
