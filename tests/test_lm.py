"""Documents never see each other, nor the future; any bytes can be scored and cut."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import blt
from blt.errors import UserError
from blt.model import transformer
from blt.patching import Patcher
from shapes import tiny_config

documents = st.lists(st.binary(max_size=200), min_size=1, max_size=6)
RULES = ["entropy", "entropy-monotonic", "entropy-combined", "space", "static", "byte"]


def close(a: torch.Tensor, b: torch.Tensor) -> bool:
    return torch.allclose(a, b, rtol=1e-4, atol=2e-5)


@given(documents)
def test_packed_documents_have_the_logits_they_have_alone(lm: blt.BLT, texts: list[bytes]) -> None:
    ids = [blt.encode(text) for text in texts]
    for alone, packed in zip(map(lm.logits, ids), lm.logits(ids), strict=True):
        assert close(alone, packed)


@given(st.binary(min_size=1, max_size=300), st.data())
def test_logits_never_depend_on_later_bytes(lm: blt.BLT, text: bytes, data: st.DataObject) -> None:
    cut = data.draw(st.integers(0, len(text) - 1))
    other = data.draw(st.binary(max_size=100))
    a = lm.logits(blt.encode(text))
    b = lm.logits(blt.encode(text[:cut] + other))
    assert close(a[: cut + 1], b[: cut + 1])


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("reset", [False, True])
@given(text=st.binary(max_size=300), cut=st.integers(0, 300))
def test_patching_is_incremental_with_the_model_in_it(
    lm: blt.BLT, rule: str, reset: bool, text: bytes, cut: int
) -> None:
    config = blt.PatchingConfig(
        rule=rule,  # type: ignore[arg-type]
        threshold=0.01 if rule == "entropy-monotonic" else 4.6,
        newline_reset=reset,
        max_patch_length=7,
    )
    ids = blt.encode(text)
    prefix = ids[: cut + 1]
    (whole, part), (h_whole, h_part) = Patcher(config, lm.entropy_model).decide([ids, prefix])
    if h_whole is not None and h_part is not None:
        assert close(h_part, h_whole[: len(prefix)])
        if not torch.equal(h_part, h_whole[: len(prefix)]):
            return  # a rounding difference may sit on a threshold
    assert torch.equal(part, whole[: len(part)]) or len(part) > len(whole)


@given(documents)
def test_entropies_do_not_depend_on_the_batch(lm: blt.BLT, texts: list[bytes]) -> None:
    ids = [blt.encode(text) for text in texts]
    assert lm.entropy_model is not None
    together = lm.entropy_model.document_entropies(ids)
    for document, entropies in zip(ids, together, strict=True):
        assert close(lm.entropy_model.document_entropies([document])[0], entropies)


def test_newline_reset_forgets_earlier_lines(lm: blt.BLT) -> None:
    assert lm.entropy_model is not None
    one, other = blt.encode("first\nsecond"), blt.encode("other line\nsecond")
    a, b = lm.entropy_model.document_entropies([one, other], newline_reset=True)
    assert close(a[-6:], b[-6:])
    a, b = lm.entropy_model.document_entropies([one, other])
    assert not close(a[-6:], b[-6:])


@given(st.binary(max_size=300))
def test_patches_are_three_views_of_one_cut(lm: blt.BLT, text: bytes) -> None:
    patches = lm.patch(text)
    assert int(patches.lengths.sum()) == len(text) + 1  # BOS is a patch of its own
    assert torch.equal(torch.bincount(patches.ids), patches.lengths)
    assert patches.entropies is not None
    assert len(patches.entropies) == len(patches.starts)
    assert bool(patches.starts[: min(2, len(patches.starts))].all())


@given(st.binary(max_size=300), st.integers(1, 50))
def test_bits_per_byte_is_the_cross_entropy_of_the_logits(
    lm: blt.BLT, text: bytes, context: int
) -> None:
    def bits(piece: bytes) -> float:
        ids = blt.encode(piece)
        log_p = torch.log_softmax(lm.logits(ids), -1)
        return -float(log_p[:-1].gather(1, ids[1:, None]).double().sum()) / math.log(2)

    length = max(1, len(text))
    assert math.isclose(lm.bits_per_byte(text), bits(text) / length, rel_tol=1e-4, abs_tol=1e-6)
    pieces = [text[at : at + context] for at in range(0, len(text), context)]
    expected = sum(map(bits, pieces)) / length
    assert math.isclose(lm.bits_per_byte(text, context), expected, rel_tol=1e-4, abs_tol=1e-6)


@pytest.mark.parametrize("context", [0, -5, 2.5])
def test_text_is_not_scored_in_pieces_of_no_bytes(lm: blt.BLT, context: Any) -> None:
    with pytest.raises(UserError, match="context"):
        lm.bits_per_byte("The old man and the sea.", context)


def test_no_texts_have_no_states(lm: blt.BLT) -> None:
    assert lm.hidden_states([]) == []


@pytest.mark.parametrize("rule", ["space", "static", "entropy"])
def test_a_single_line_of_a_megabyte_can_be_cut_and_scored(rule: str) -> None:
    torch.manual_seed(0)
    config = tiny_config(
        local_dim=8, local_heads=1, encoder_ff_dim=8, decoder_ff_dim=8, decoder_layers=1,
        global_dim=16, global_heads=1, global_layers=1, global_ff_dim=8,
        entropy_model=blt.ByteTransformerConfig(
            dim=8, heads=1, layers=1, ff_dim=8, sliding_window=32
        ),
    )  # fmt: skip
    rules = replace(config.patching, rule=rule, threshold=5.3, max_patch_length=16)  # type: ignore[arg-type]
    config = replace(config, patching=rules)
    model = blt.BLT(config)
    text = b"\x00\xffab " * 200_000
    assert int(model.patch(text).lengths.sum()) == len(text) + 1
    assert 0 < model.bits_per_byte(text, context=8192) < 20


def test_nothing_is_a_document_too(lm: blt.BLT) -> None:
    empty = torch.empty(0, dtype=torch.int64)
    assert lm.logits(empty).shape == (0, 260)
    assert [x.shape[0] for x in lm.logits([empty, blt.encode(b""), empty])] == [0, 1, 0]
    assert lm.bits_per_byte(b"") == 0.0
    assert len(lm.patch(empty).lengths) == 0
    assert lm.logits([]) == []


def test_the_same_seed_writes_the_same_bytes(lm: blt.BLT) -> None:
    options = {"max_bytes": 12, "temperature": 1.0}
    first, second = (lm.generate("ab", seed=3, **options) for _ in range(2))
    assert first.data == second.data
    assert len(lm.generate(b"\xff", max_bytes=5).data) <= 5
    with pytest.raises(ValueError, match="temperature"):
        lm.generate("x", temperature=-1.0)


@given(st.binary(min_size=1, max_size=40))
def test_greedy_writes_the_most_likely_byte(lm: blt.BLT, prompt: bytes) -> None:
    written = lm.generate(prompt, max_bytes=1).data
    best = int(lm.logits(blt.encode(prompt))[-1, [blt.vocab.EOS, *range(4, 260)]].argmax())
    assert written == (b"" if best == 0 else bytes([best - 1]))


def test_entropies_of_a_long_document_do_not_depend_on_the_pieces_it_is_read_in(
    lm: blt.BLT, monkeypatch: pytest.MonkeyPatch
) -> None:
    generator = torch.Generator().manual_seed(3)
    texts = [torch.randint(4, 260, (n,), generator=generator) for n in (700, 1, 90, 129)]
    whole = lm.entropy_model.document_entropies(texts)
    monkeypatch.setattr(transformer, "PIECE", 40)  # shorter than the model can look back
    pieces = lm.entropy_model.document_entropies(texts)
    for found, expected in zip(pieces, whole, strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
