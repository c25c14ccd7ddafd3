"""Packed weights give the model's products, in their own precision, in PyTorch and in C++."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import blt
from blt import encode
from blt.errors import UserError
from blt.generate import Engine, cpp
from blt.generate.caches.rings import MAX_ROWS
from blt.generate.incremental_blt import cached
from blt.generate.weights import Precision, _packed_linear, cache_dtype, packed
from shapes import TINY, random_blt, tiny_config
from texts import MULTILINGUAL

ERRORS: dict[Precision, float] = {"float32": 1e-5, "bfloat16": 0.02, "int8": 0.03}
WAYS = [False, pytest.param(True, marks=pytest.mark.skipif(not cpp.library(), reason="no C++"))]


@pytest.mark.parametrize("in_cpp", WAYS)
@pytest.mark.parametrize("precision", ERRORS)
@given(
    st.integers(1, 40),
    st.sampled_from([(32, 96), (48, 33), (20, 7), (40, 64), (256, 688)]),
    st.integers(0),
)
def test_packed_products_are_products(
    precision: Precision, in_cpp: bool, rows: int, shape: tuple[int, int], seed: int
) -> None:
    generator = torch.Generator().manual_seed(seed % 2**32)
    x = torch.randn(rows, shape[0], generator=generator)
    weight = torch.randn(shape[1], shape[0], generator=generator)
    linear = _packed_linear(weight, precision, in_cpp)
    if in_cpp:
        from blt.generate.cpp.products import NativeLinear

        linear = NativeLinear(linear)  # type: ignore[arg-type]
    expected = x @ weight.t()
    found = linear(x)
    assert found.dtype == torch.float32
    assert (found - expected).abs().max() <= ERRORS[precision] * expected.abs().max()


@pytest.mark.skipif(not cpp.library(), reason="no C++")
@pytest.mark.parametrize("precision", ERRORS)
@given(
    st.integers(1, 21), st.sampled_from([(32, 96), (48, 33), (20, 7), (256, 50)]), st.integers(0)
)
def test_a_row_of_a_product_does_not_depend_on_the_others(
    precision: Precision, rows: int, shape: tuple[int, int], seed: int
) -> None:
    from blt.generate.cpp.products import NativeLinear

    generator = torch.Generator().manual_seed(seed % 2**32)
    x = torch.randn(rows, shape[0], generator=generator)
    weight = torch.randn(shape[1], shape[0], generator=generator)
    linear = NativeLinear(_packed_linear(weight, precision, True))  # type: ignore[arg-type]
    alone = torch.cat([linear(row[None]) for row in x])
    assert torch.equal(linear(x), alone)


@pytest.mark.skipif(not cpp.library(), reason="no C++")
@pytest.mark.parametrize("precision", ERRORS)
@pytest.mark.parametrize("value", [torch.inf, torch.nan])
def test_what_is_not_finite_stays_so_in_a_product(precision: Precision, value: float) -> None:
    from blt.generate.cpp.products import NativeLinear

    x = torch.ones(3, 40)
    x[1, 7] = value
    linear = NativeLinear(_packed_linear(torch.ones(20, 40), precision, True))  # type: ignore[arg-type]
    assert torch.isfinite(linear(x)).all(1).tolist() == [True, False, True]


@pytest.mark.skipif(not cpp.library(), reason="no C++")
@pytest.mark.parametrize("precision", ERRORS)
def test_a_text_has_the_logits_in_a_batch_that_it_has_alone(precision: Precision) -> None:
    lm = packed(random_blt(), precision, True)
    model = cached(lm, 16, cache_dtype(lm, precision))
    ids = encode(MULTILINGUAL[:1000]).tolist()
    texts = [ids[7 * row : 10 * row + 5] for row in range(13)]
    states = []
    for text in texts:
        model.read([text])
        states.append(model.save(0))
        model.drop(0)

    def steps(rows: list[int]) -> torch.Tensor:  # [rows, steps, 260]
        for row in rows:
            model.load(states[row])
        found = []
        for step in range(12):
            found.append(model.extend([[ids[(31 * row + step) % 900]] for row in rows]))
            model.commit([1] * len(rows))
        for _ in rows:
            model.drop(0)
        return torch.cat(found, 1)

    together = steps(list(range(len(texts))))
    for row in range(len(texts)):
        assert torch.equal(steps([row])[0], together[row])


@pytest.mark.parametrize("in_cpp", WAYS)
@pytest.mark.parametrize("precision", ERRORS)
def test_a_packed_model_shares_what_is_not_packed_and_leaves_the_model_alone(
    precision: Precision, in_cpp: bool
) -> None:
    lm = random_blt()
    before = {name: tensor.clone() for name, tensor in lm.state_dict().items()}
    ids = encode(MULTILINGUAL[:300])
    twin = packed(lm, precision, in_cpp)
    shared = {tensor.data_ptr() for tensor in twin.parameters()}
    assert lm.encoder.embedding.ngram.data_ptr() in shared
    expected = lm.logits(ids)
    model = cached(twin, 1, cache_dtype(twin, precision))
    model.read([ids[:200].tolist()])
    tolerance = {"float32": 1e-4, "bfloat16": 0.1, "int8": 0.1}[precision]
    scale = expected.abs().max()
    assert (model.logits[0] - expected[199]).abs().max() < tolerance * scale
    if precision == "float32":  # others cut other patches now and then
        assert (model.extend([ids[200:230].tolist()])[0] - expected[200:230]).abs().max() < (
            tolerance * scale
        )
    assert all(torch.equal(tensor, before[name]) for name, tensor in lm.state_dict().items())


@pytest.mark.parametrize("in_cpp", WAYS)
@pytest.mark.parametrize("precision", ["bfloat16", "int8"])
def test_steps_with_narrow_weights_are_those_of_a_model_with_these_weights(
    precision: Precision, in_cpp: bool
) -> None:
    """With the same rounded weights in float32, only sums and caches differ."""
    lm = random_blt(rule="space")
    twin = packed(lm, precision, in_cpp)
    rounded = random_blt(rule="space")
    with torch.no_grad():
        for module in rounded.modules():
            if isinstance(module, torch.nn.Linear):
                linear = _packed_linear(module.weight.detach(), precision, True)
                weight = linear.weight.float()
                scale = getattr(linear, "scale", None)
                module.weight.copy_(weight if scale is None else weight * scale.float()[:, None])
    ids = encode(MULTILINGUAL[:200])
    expected = rounded.logits(ids)
    model = cached(twin, 1, cache_dtype(twin, precision))
    model.read([ids[:20].tolist()])
    for at in range(20, len(ids), MAX_ROWS):
        part = ids[at : at + MAX_ROWS]
        logits = model.extend([part.tolist()])[0]
        model.commit([len(part)])
        error = (logits - expected[at : at + len(part)]).norm() / expected.norm()
        assert error < 0.02


@pytest.mark.parametrize("in_cpp", WAYS)
@pytest.mark.parametrize("precision", ["bfloat16", "int8"])
def test_a_model_in_bfloat16_writes_as_its_copy_in_float32(
    precision: Precision, in_cpp: bool
) -> None:
    """Its hash tables stay where they are; only their sums are rounded."""
    narrow = random_blt(rule="space").bfloat16()
    wide = copy.deepcopy(narrow).float()
    ids = encode(MULTILINGUAL[:120]).tolist()
    logits = []
    for lm in (narrow, wide):
        model = packed(lm, precision, in_cpp)
        assert isinstance(model, blt.BLT)
        ngram = lm.encoder.embedding.ngram
        assert model.encoder.embedding.ngram.data_ptr() == ngram.data_ptr()
        writer = cached(model, 1, cache_dtype(model, precision))
        writer.read([ids[:60]])
        logits.append([])
        for at in range(60, len(ids), 5):
            logits[-1].append(writer.extend([ids[at : at + 5]])[0])
            writer.commit([len(ids[at : at + 5])])
    found, expected = (torch.cat(steps) for steps in logits)
    assert (found - expected).norm() < 0.02 * expected.norm()


@pytest.mark.skipif(not cpp.library(), reason="no C++")
@pytest.mark.parametrize(
    "changes",
    [
        {"encoder_layers": 2, "encoder_cross_attention": "all"},
        {"decoder_cross_attention": "first", "decoder_layers": 3},
        {"encoder_cross_attention": "none"},
        {"decoder_cross_attention": "none"},
        {"encoder_cross_attention": "none", "decoder_cross_attention": "none"},
        {"cross_attention_k": 4, "global_dim": 40, "global_heads": 5},
        {"local_dim": 36, "local_heads": 3, "encoder_ff_dim": 50, "decoder_ff_dim": 37},
    ],
)
def test_cpp_steps_fit_every_shape(changes: dict[str, object]) -> None:
    torch.manual_seed(1)
    lm = blt.BLT(tiny_config(patching=blt.PatchingConfig(rule="space"), **changes)).eval()
    ids = encode(MULTILINGUAL[:400])
    expected = lm.logits(ids)
    model = cached(packed(lm, "float32", native=True), 1)
    model.read([ids[:60].tolist()])
    for at in range(60, len(ids), 7):
        logits = model.extend([ids[at : at + 7].tolist()])[0]
        model.commit([len(logits)])
        assert (logits - expected[at : at + 7]).abs().max() < 1e-4 * expected.abs().max()


def test_without_a_compiler_pytorch_does_the_work(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    lm = blt.ByteLM(TINY)
    expected = lm.generate("abc", max_bytes=20).data
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    for compiler in ("/no/such/compiler", "false"):
        cpp.library.cache_clear()
        monkeypatch.setenv("CXX", compiler)
        assert cpp.library() is None
        assert lm.generate("abc", max_bytes=20).data == expected
        with pytest.raises(UserError, match="compiler"):
            Engine(lm, native=True)
    assert not list(tmp_path.rglob("*.so"))
    cpp.library.cache_clear()
