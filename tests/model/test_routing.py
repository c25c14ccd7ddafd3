"""Patches that a model learns to cut: the formulas, what they keep, and what they learn from."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import blt
from blt.errors import UserError
from blt.model.compiling import compile_model
from blt.model.flops import flops_per_byte
from blt.model.packing import Laid, PackedBatch, end_to_end, pack
from blt.model.routing import Router, Routes, cut, routes_of, smooth
from blt.patching import Patcher, PatchingConfig, decide
from blt.patching.deciding import decide_by, rule_of
from shapes import random_blt, tiny_config
from texts import MULTILINGUAL

CPU = torch.device("cpu")
texts = st.lists(st.binary(max_size=120), min_size=1, max_size=5)
longest = st.one_of(st.none(), st.integers(1, 6))
seeds = st.integers(0, 2**31)


@pytest.fixture(scope="module")
def lm() -> blt.BLT:
    return random_blt("learned", max_patch_length=9)


def documents_of(data: list[bytes]) -> list[torch.Tensor]:
    return [blt.encode(text) for text in data]


def chance(seed: int, documents: list[torch.Tensor]) -> list[torch.Tensor]:
    """Random probabilities of each document, 1 after BOS."""
    generator = torch.Generator().manual_seed(seed)
    found = [torch.rand(len(ids), generator=generator) for ids in documents]
    for p in found:
        p[0] = 1.0
    return found


def routed(seed: int, data: list[bytes], most: int | None) -> tuple[Routes, list[torch.Tensor]]:
    documents = documents_of(data)
    p = chance(seed, documents)
    flat = torch.cat(p)
    return Routes(cut(flat, Laid(*end_to_end(documents, CPU)), most), flat), p


@given(texts, longest, seeds)
def test_text_is_cut_on_the_device_as_the_rule_cuts_it(
    data: list[bytes], most: int | None, seed: int
) -> None:
    routes, p = routed(seed, data, most)
    rule = rule_of(PatchingConfig("learned", max_patch_length=most))
    documents = documents_of(data)
    expected = pack(
        documents, [decide_by(rule, ids, one) for ids, one in zip(documents, p, strict=True)]
    )
    assert routes.batch.patches.offsets == expected.patches.offsets
    assert routes.batch.patches.longest == expected.patches.longest
    assert routes.batch.mean_patch_size == expected.mean_patch_size
    for name in ("ids", "patch_ids", "decoder_patch_ids", "patch_offsets"):
        assert torch.equal(getattr(routes.batch, name), getattr(expected, name)), name


@given(texts, longest, seeds)
def test_patches_mix_with_those_before_them_as_one_after_the_other_would(
    data: list[bytes], most: int | None, seed: int
) -> None:
    routes, _ = routed(seed, data * 3, most)
    z = torch.randn(routes.batch.num_patches, 3, generator=torch.Generator().manual_seed(seed))
    expected = []
    for first, end in pairwise(routes.batch.patches.offsets):
        before = None
        for j in range(first, end):
            p = float(routes.p[routes.batch.patch_offsets[j + 1] - 1])
            p = p if p >= 0.5 else 1.0  # it ended for another reason
            before = z[j] if before is None else p * z[j] + (1 - p) * before
            expected.append(before)
    assert torch.allclose(routes.smoothed(z), torch.stack(expected), atol=1e-6)


def test_many_patches_in_a_row_are_mixed_to_rounding_and_have_gradients() -> None:
    generator = torch.Generator().manual_seed(0)
    z = torch.randn(500, 4, generator=generator, requires_grad=True)
    p = (0.5 + torch.rand(500, generator=generator) / 2).clamp(max=0.501)
    p[0] = 1.0
    p.requires_grad_()
    before, rows = None, []
    for row, one in zip(z, p, strict=True):
        before = row if before is None else one * row + (1 - one) * before
        rows.append(before)
    slow = torch.autograd.grad(torch.stack(rows).square().sum(), (z, p))
    found = smooth(z, p)
    assert torch.allclose(found, torch.stack(rows), atol=1e-6)
    fast = torch.autograd.grad(found.square().sum(), (z, p))
    assert torch.allclose(fast[0], slow[0], atol=1e-5)
    assert torch.allclose(fast[1][1:], slow[1][1:], atol=1e-4)


def of_shares(share: float, mean: float) -> Routes:
    """Of one document of 1000 bytes, of which so many end a patch."""
    p = torch.full((1001,), mean)
    p[0] = 1.0
    opens = torch.zeros(1001, dtype=torch.bool)
    opens[: 1 + round(1000 * share)] = True
    (batch,) = [pack([blt.encode(bytes(1000))], [torch.cat((torch.ones(1).bool(), opens))])]
    return Routes(batch, p)


@given(st.floats(1.2, 12))
def test_the_ratio_loss_is_least_where_patches_have_the_size_that_is_wanted(size: float) -> None:
    steps = torch.linspace(0.01, 1, 199).tolist()
    losses = [float(of_shares(x, x).ratio_loss(size)) for x in steps]
    assert abs(steps[losses.index(min(losses))] - 1 / size) < 0.01
    exact = of_shares(0.25, 0.25).ratio_loss(4.0)
    assert float(exact) == pytest.approx(1.0, abs=1e-4)


@pytest.mark.parametrize(("share", "sign"), [(0.5, 1), (0.1, -1)])
def test_the_ratio_loss_moves_probabilities_towards_that_size(share: float, sign: int) -> None:
    routes = of_shares(share, 0.4)
    p = routes.p.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(Routes(routes.batch, p).ratio_loss(4.0), p)
    assert bool((gradient.sign() == sign).all())


def test_the_text_alone_teaches_the_router(lm: blt.BLT) -> None:
    ids = blt.encode(MULTILINGUAL[:300])
    with routes_of(lm) as routes:
        logits = lm(lm.lay_out([ids]))
    loss = lm.loss(logits[:-1], ids[1:])
    loss.backward()  # type: ignore[no-untyped-call]
    assert len(routes) == 1
    assert lm.router is not None
    for weight in (lm.router.query.weight, lm.router.key.weight):
        assert weight.grad is not None
        assert float(weight.grad.norm()) > 1e-4
    lm.zero_grad()


def test_confidence_is_one_and_pushes_decisions_that_helped() -> None:
    routes, _ = routed(1, [bytes(60)], 4)
    p = routes.p.clone().requires_grad_()
    confidence = Routes(routes.batch, p).confidence
    assert torch.equal(confidence, torch.ones_like(p))
    (gradient,) = torch.autograd.grad(confidence.sum(), p)
    own = routes.opens == (p >= 0.5)  # not where max_patch_length ended a patch
    assert torch.equal(gradient[own & (p >= 0.5)].unique(), torch.tensor([1.0]))
    assert torch.equal(gradient[own & (p < 0.5)].unique(), torch.tensor([-1.0]))
    assert bool((~own).any())
    assert not bool(gradient[~own].any())


def test_a_new_router_compares_states_as_they_are() -> None:
    router = Router(tiny_config(patching=PatchingConfig("learned")))
    x = torch.randn(6, 32, generator=torch.Generator().manual_seed(0))
    _, spans = end_to_end([torch.zeros(6, dtype=torch.int64)], CPU)
    p = router.along(x, spans)
    expected = (1 - torch.cosine_similarity(x[1:], x[:-1])) / 2
    assert p[0].item() == 1.0
    assert torch.allclose(p[1:], expected, atol=1e-6)


@given(texts)
def test_documents_have_the_logits_and_patches_they_have_alone(
    lm: blt.BLT, data: list[bytes]
) -> None:
    ids = documents_of(data)
    together, cuts = lm.logits(ids), lm.decide(ids)[0]
    for one, packed, decisions in zip(ids, together, cuts, strict=True):
        assert torch.allclose(lm.logits(one), packed, atol=1e-5, rtol=1e-5)
        assert torch.equal(lm.decide([one])[0][0], decisions)


@given(st.binary(min_size=1, max_size=200), st.integers(0, 200), st.binary(max_size=20))
def test_neither_patches_nor_logits_depend_on_what_comes_later(
    lm: blt.BLT, text: bytes, at: int, other: bytes
) -> None:
    end = min(at, len(text))
    one, two = blt.encode(text), blt.encode(text[:end] + other)
    (a, b), _ = lm.decide([one, two])
    assert torch.equal(a[: end + 2], b[: end + 2])
    assert torch.allclose(lm.logits(one)[: end + 1], lm.logits(two)[: end + 1], atol=1e-5)


def test_a_batch_that_is_cut_already_has_the_logits_of_one_that_the_model_cuts(
    lm: blt.BLT,
) -> None:
    ids = documents_of([b"some text", MULTILINGUAL[:200]])
    packed = lm.pack(ids)
    assert isinstance(packed, PackedBatch)
    assert packed.mean_patch_size > 1.2
    assert torch.allclose(lm(packed), lm(lm.lay_out(ids)), atol=1e-6)


def test_scores_of_texts_that_begin_alike_are_those_of_each_alone(lm: blt.BLT) -> None:
    pairs = [(MULTILINGUAL[:100], rest) for rest in (b"one", b"two words", b"")]
    for pair, found in zip(pairs, lm.log_likelihoods(pairs), strict=True):
        (alone,) = lm.log_likelihoods([pair])
        assert found == pytest.approx(alone, abs=1e-4)


def test_what_is_shown_of_a_text_is_how_likely_each_byte_starts_a_patch(lm: blt.BLT) -> None:
    data = MULTILINGUAL[:80]
    found = lm.patcher.cut(data)
    assert found.entropies is None
    assert found.probabilities is not None
    assert found.to_json()["probabilities"] == found.probabilities
    assert len(found.probabilities) == len(data)
    likely = {j for j, p in enumerate(found.probabilities) if p >= 0.5}
    assert likely <= set(found.starts)
    assert found.rule == "learned, at most 9 bytes per patch"
    assert lm.patch(blt.encode(data)).lengths[1:].tolist() == found.lengths


def test_a_router_is_two_products_of_each_byte() -> None:
    learned, other = (
        flops_per_byte(tiny_config(patching=PatchingConfig(rule)), 4.0, 100)
        for rule in ("learned", "space")
    )
    assert learned.total - other.total == pytest.approx(2 * 2 * 32 * 32)


def test_what_cannot_be_done_with_a_router_is_said(
    lm: blt.BLT, caplog: pytest.LogCaptureFixture
) -> None:
    assert not compile_model(lm)
    assert "nothing is compiled" in caplog.text
    with pytest.raises(UserError, match="needs the model"):
        Patcher(PatchingConfig("learned")).cut(b"text")
    with pytest.raises(ValueError, match="needs the model"):
        decide(PatchingConfig("learned"), blt.encode(b"text"))
