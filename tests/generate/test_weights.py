"""Packed weights give the model's products, in their own precision."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from blt import encode
from blt.generate.incremental import cached
from blt.generate.weights import Precision, _packed_linear, packed
from shapes import random_blt
from texts import MULTILINGUAL

ERRORS: dict[Precision, float] = {"float32": 1e-5, "bfloat16": 0.02, "int8": 0.03}


@pytest.mark.parametrize("precision", ERRORS)
@given(
    st.integers(1, 40),
    st.sampled_from([(32, 96), (48, 33), (20, 7), (40, 64), (256, 688)]),
    st.integers(0),
)
def test_packed_products_are_products(
    precision: Precision, rows: int, shape: tuple[int, int], seed: int
) -> None:
    generator = torch.Generator().manual_seed(seed % 2**32)
    x = torch.randn(rows, shape[0], generator=generator)
    weight = torch.randn(shape[1], shape[0], generator=generator)
    expected = x @ weight.t()
    found = _packed_linear(weight, precision)(x)
    assert found.dtype == torch.float32
    assert (found - expected).abs().max() <= ERRORS[precision] * expected.abs().max()


@pytest.mark.parametrize("precision", ERRORS)
def test_a_packed_model_shares_what_is_not_packed_and_leaves_the_model_alone(
    precision: Precision,
) -> None:
    lm = random_blt()
    before = {name: tensor.clone() for name, tensor in lm.state_dict().items()}
    ids = encode(MULTILINGUAL[:300])
    copy = packed(lm, precision)
    assert copy.encoder.embedding.ngram.data_ptr() == lm.encoder.embedding.ngram.data_ptr()
    expected = lm.logits(ids)
    model = cached(copy, 1)
    model.read([ids[:200].tolist()])
    tolerance = {"float32": 1e-4, "bfloat16": 0.1, "int8": 0.1}[precision]
    scale = expected.abs().max()
    assert (model.logits[0] - expected[199]).abs().max() < tolerance * scale
    assert (copy.logits(ids) - expected).norm() < tolerance * expected.norm()
    assert all(torch.equal(tensor, before[name]) for name, tensor in lm.state_dict().items())
