"""Models with hash n-gram tables write exactly, whatever their hashes leave out."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import blt
from blt.errors import UserError
from blt.generate import Engine, Sampling
from blt.generate.caches.rings import MAX_ROWS
from blt.generate.cpp import library
from blt.generate.incremental_blt import cached
from blt.generate.weights import packed
from blt.vocab import encode
from shapes import TINY, tiny_config

FOLDS = [(), ("case",), ("repeats",), ("case", "repeats")]
TEXT = b"Hello, hello, HELLLO world!\n\nAaaa bbb\naaa" * 2 + b"l" * 40 + b" end"
GATE: dict[str, Any] = {"hash_gate": True}
NATIVE = [False, pytest.param(True, marks=pytest.mark.skipif(library() is None, reason="no C++"))]


def shape_of(fold: tuple[str, ...]) -> blt.ByteTransformerConfig:
    return replace(
        TINY, hash_ngram_sizes=(2, 3, 5), hash_rows=97, hash_functions=2, hash_fold=fold, layers=2
    )


def model_of(kind: str, fold: tuple[str, ...], gate: dict[str, Any] | None = None) -> Any:
    """Its n-grams matter: rows of tables are as large as embeddings."""
    torch.manual_seed(0)
    shape = replace(shape_of(fold), **(gate or {}))
    if kind == "byte":
        return blt.ByteLM(shape).eval()
    patching = blt.PatchingConfig(threshold=4.6, newline_reset=True)
    lm = blt.BLT(
        tiny_config(hash_fold=fold, **(gate or {}), entropy_model=shape, patching=patching)
    )
    assert lm.entropy_model is not None
    with torch.no_grad():
        lm.entropy_model.head.weight *= 2
        (h,) = lm.decide([encode(TEXT)])[1]
        assert h is not None
        ordered = h.sort().values[len(h) // 3 : 2 * len(h) // 3]
        at = int(ordered.diff().argmax())  # far from all entropies: rounding must not cut
        middle = float(ordered[at] + ordered[at + 1]) / 2
    lm.config = replace(lm.config, patching=replace(patching, threshold=middle))
    return lm.eval()


def close(found: torch.Tensor, expected: torch.Tensor) -> bool:
    return float((found - expected).abs().max() / expected.abs().max()) < 1e-4


@pytest.mark.parametrize("native", NATIVE)
@pytest.mark.parametrize(
    ("fold", "gate"),
    [*((f, {}) for f in FOLDS), ((), GATE), (("repeats",), GATE | {"hash_dim": 11})],
)
@pytest.mark.parametrize("kind", ["byte", "blt"])
def test_cached_steps_give_the_logits_of_a_full_forward(
    kind: str, fold: tuple[str, ...], gate: dict[str, Any], native: bool
) -> None:
    lm = model_of(kind, fold, gate)
    ids = encode(TEXT)
    expected = lm.logits(ids)
    for size in (1, 7, MAX_ROWS + 9):  # one at a time, some as drafts, and pieces
        model = cached(packed(lm, "float32", native=native), 1)
        model.read([ids[:3].tolist()])
        for at in range(3, len(ids), size):
            part = ids[at : at + size].tolist()
            assert close(model.extend([part])[0], expected[at : at + size])
            model.commit([len(part)])


@pytest.mark.parametrize("fold", FOLDS)
@pytest.mark.parametrize("kind", ["byte", "blt"])
@settings(max_examples=10)
@given(data=st.data())
def test_what_is_taken_back_saved_or_forked_leaves_no_trace(
    kind: str, fold: tuple[str, ...], data: st.DataObject
) -> None:
    lm = model_of(kind, fold)
    letters = st.lists(st.sampled_from(list(b"aAb\n")), max_size=12).map(bytes)
    texts = [data.draw(letters) for _ in range(3)]
    model = cached(lm, 6)
    model.read([encode(text).tolist() for text in texts])
    tried = encode(data.draw(letters), bos=False).tolist()
    if tried:
        model.extend([tried] * 3)
        kept = data.draw(st.integers(0, len(tried)))
        model.commit([kept] * 3)
        texts = [text + bytes(i - 4 for i in tried[:kept]) for text in texts]
    model.fork(1)
    model.load(model.save(2))
    model.drop(0)  # the last one takes its row
    for row, text in enumerate([texts[2], texts[1], texts[2], texts[1]]):
        found = model.extend([[ord("a") + 4]], row)[0, 0]
        assert close(found, lm.logits(encode(text + b"a"))[-1])


@pytest.mark.parametrize("native", NATIVE)
@pytest.mark.parametrize("fold", FOLDS)
@pytest.mark.parametrize("kind", ["byte", "blt"])
def test_what_is_written_is_what_the_logits_say(
    kind: str, fold: tuple[str, ...], native: bool
) -> None:
    lm = model_of(kind, fold)
    drafts = 3 if kind == "blt" else 0
    engine = Engine(lm, max_batch=2, native=native, captured=False, draft_bytes=drafts)
    prompts = [b"", b"Hello, HELLO", b"aaaa\naaa"]
    handles = [engine.submit(prompt, max_bytes=12, ignore_eos=True) for prompt in prompts]
    engine.run()
    for prompt, handle in zip(prompts, handles, strict=True):
        text = prompt
        for byte in handle.result().data:
            logits = lm.logits(encode(text))[-1]
            assert float(logits[4:].max() - logits[byte + 4]) < 1e-3
            text += bytes([byte])


@pytest.mark.parametrize("fold", [(), ("case",)])
@pytest.mark.parametrize("kind", ["byte", "blt"])
def test_captured_steps_write_the_same_bytes(kind: str, fold: tuple[str, ...]) -> None:
    lm = model_of(kind, fold)
    results = []
    for captured in (True, False):
        drafts = 3 if kind == "blt" else 0
        engine = Engine(lm, max_batch=3, captured=captured, native=False, draft_bytes=drafts)
        sampling = Sampling(max_bytes=40, temperature=1.0, seed=1, ignore_eos=True)
        handles = [engine.submit(p, sampling) for p in (b"", b"Hello\n", TEXT[:100])]
        engine.run()
        results.append([(h.result().data, h.result().starts) for h in handles])
    assert results[0] == results[1]


def test_captured_steps_refuse_what_they_cannot_look_back_to() -> None:
    for kind in ("byte", "blt"):
        with pytest.raises(UserError, match=r"captured steps are not possible: .*hash_fold"):
            Engine(model_of(kind, ("repeats",)), captured=True)
        with pytest.raises(UserError, match=r"captured steps are not possible: .*hash_gate"):
            Engine(model_of(kind, (), GATE), captured=True)
