"""Cached steps give the logits of a full forward, whatever the rule, the batch and the order."""

from __future__ import annotations

import itertools
import random

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import blt
from blt.generate.caches.rings import MAX_ROWS
from blt.generate.incremental import CachedModel
from blt.generate.incremental_blt import CachedBLT, cached
from blt.vocab import encode
from checkpoints import SCALING
from shapes import TINY, TINY_BLT, random_blt, tiny_config
from texts import MULTILINGUAL

ENTROPY_RULES = ("entropy", "entropy-monotonic", "entropy-combined")
RULES = (*ENTROPY_RULES, "space", "static", "byte", "lookup", "learned")


def relative(found: torch.Tensor, expected: torch.Tensor) -> float:
    return float((found - expected).abs().max() / expected.abs().max())


def steps(model: CachedModel, ids: list[int], row: int = 0) -> torch.Tensor:
    """Logits after each id, one at a time."""
    found = []
    for token_id in ids:
        found.append(model.extend([[token_id]], row)[0, 0])
        model.commit([1])
    return torch.stack(found)


def calibrated(rule: str, reset: bool, longest: int | None) -> blt.BLT:
    """A model that cuts real patches out of MULTILINGUAL."""
    model = random_blt(rule=rule, newline_reset=reset, max_patch_length=longest, window=256)
    if rule in ENTROPY_RULES:
        ids = encode(MULTILINGUAL)
        (h,) = model.decide([ids])[1]
        assert h is not None
        values = torch.diff(h) if rule == "entropy-monotonic" else h
        model = random_blt(
            rule=rule,
            newline_reset=reset,
            max_patch_length=longest,
            window=256,
            threshold=float(values.quantile(0.7)),
        )
    return model


@pytest.mark.parametrize(
    ("rule", "reset", "longest"),
    [
        (rule, reset, longest)
        for rule, reset, longest in itertools.product(RULES, (False, True), (None, 5))
        if rule in ENTROPY_RULES or not reset  # other rules read no entropies
    ],
)
def test_every_prefix_of_real_text_has_the_logits_of_a_full_forward(
    rule: str, reset: bool, longest: int | None
) -> None:
    """Of one rule a thousand bytes, of the others less: all are longer than the window."""
    lm = calibrated(rule, reset, longest)
    plain = rule == "entropy" and not reset and longest is None
    ids = encode(MULTILINGUAL)[: 1100 if plain else 450]
    assert len(ids) >= 450
    expected = lm.logits(ids)
    model = cached(lm, 1)
    model.read([ids[:1].tolist()])
    found = torch.cat((model.logits[:1], steps(model, ids[1:].tolist())))
    errors = (found - expected).abs().amax(1) / expected.abs().amax(1)
    assert float(errors.max()) < 1e-4
    assert torch.equal(found.argmax(1), expected.argmax(1))

    patches = int(lm.patch(ids).starts.sum()) - (not lm.patch(ids).opens_next)
    counts = model.counts
    assert counts.global_transformer == patches
    assert counts.encoder == counts.decoder == len(ids)
    assert counts.entropy_model == (len(ids) if rule in ENTROPY_RULES else 0)


def test_scaled_positions_of_patches_are_the_same_in_cached_steps() -> None:
    torch.manual_seed(0)
    patching = blt.PatchingConfig(rule="static", stride=3)
    lm = blt.BLT(tiny_config(global_rope_scaling=SCALING, patching=patching)).eval()
    ids = encode(MULTILINGUAL[:400])
    expected = lm.logits(ids)
    model = cached(lm, 1)
    model.read([ids[:1].tolist()])
    found = torch.cat((model.logits[:1], steps(model, ids[1:].tolist())))
    assert relative(found, expected) < 1e-4
    lm.global_transformer.transformer.rope_scaling = None
    assert relative(lm.logits(ids), expected) > 1e-3  # it matters


@given(st.binary(max_size=300), st.integers(0, 300), st.data())
def test_what_is_taken_back_leaves_no_trace(text: bytes, read: int, data: st.DataObject) -> None:
    lm = random_blt(newline_reset=True, max_patch_length=9)
    ids = encode(text)
    expected = lm.logits(ids)
    model = cached(lm, 1)
    at = max(1, min(read, len(ids)))
    model.read([ids[:at].tolist()])
    assert relative(model.logits[0], expected[at - 1]) < 1e-4
    while at < len(ids):
        count = data.draw(st.integers(0, MAX_ROWS))
        tried = data.draw(st.lists(st.integers(0, 259), max_size=MAX_ROWS - count))
        rows = [*ids[at : at + count].tolist(), *tried]
        if not rows:
            rows = [7]
        kept = min(count, len(ids) - at)
        logits = model.extend([rows])
        model.commit([kept])
        if kept:
            assert relative(logits[0, :kept], expected[at : at + kept]) < 1e-4
        at += kept
        if count == 0:
            at_once = ids[at : at + 1].tolist()
            assert relative(model.extend([at_once])[0, 0], expected[at]) < 1e-4
            model.commit([1])
            at += 1


@given(st.lists(st.binary(max_size=120), min_size=1, max_size=5), st.randoms())
def test_texts_of_a_batch_do_not_see_each_other(texts: list[bytes], chance: random.Random) -> None:
    lm = random_blt()
    documents = [encode(text) for text in texts]
    expected = [lm.logits(ids) for ids in documents]
    starts = [chance.randint(1, len(ids)) for ids in documents]
    model = cached(lm, len(texts))
    model.read([ids[:n].tolist() for ids, n in zip(documents, starts, strict=True)])
    for row, n in enumerate(starts):
        assert relative(model.logits[row], expected[row][n - 1]) < 1e-4
    alive = list(range(len(texts)))  # which document lies in which row
    at = list(starts)
    while alive:
        for row in range(len(alive) - 1, -1, -1):
            if at[alive[row]] == len(documents[alive[row]]):
                model.drop(row)
                alive[row] = alive[-1]
                alive.pop()
        if alive:
            logits = model.extend([[int(documents[i][at[i]])] for i in alive])
            model.commit([1] * len(alive))
            for row, i in enumerate(alive):
                assert relative(logits[row, 0], expected[i][at[i]]) < 1e-4
                at[i] += 1


@given(st.binary(min_size=2, max_size=200), st.binary(max_size=50), st.binary(max_size=50))
def test_saved_and_forked_texts_go_on_apart(shared: bytes, one: bytes, other: bytes) -> None:
    lm = random_blt()
    model = cached(lm, 4)
    model.read([encode(b"another text").tolist(), encode(shared).tolist()])
    saved = model.save(1)
    model.fork(1)
    model.read_on(1, encode(one, bos=False).tolist())
    model.read_on(2, encode(other, bos=False).tolist())
    model.load(saved)
    model.read_on(3, encode(other, bos=False).tolist())
    assert relative(model.logits[1], lm.logits(encode(shared + one))[-1]) < 1e-4
    expected = lm.logits(encode(shared + other))[-1]
    assert relative(model.logits[2], expected) < 1e-4
    assert relative(model.logits[3], expected) < 1e-4
    assert len(saved) == len(shared)


def test_a_long_prompt_is_read_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("blt.generate.incremental.PIECE_BYTES", 100)
    lm = random_blt()
    ids = encode(MULTILINGUAL[:333])
    model = cached(lm, 1)
    model.read([ids.tolist()])
    assert relative(model.logits[0], lm.logits(ids)[-1]) < 1e-4


def test_a_byte_model_without_patches_is_cached_too() -> None:
    torch.manual_seed(0)
    lm = blt.ByteLM(TINY)
    ids = encode(MULTILINGUAL[:400])
    model = cached(lm, 1)
    model.read([ids[:150].tolist()])
    expected = lm.logits(ids)
    assert relative(steps(model, ids[150:].tolist()), expected[150:]) < 1e-4
    assert model.counts.decoder == len(ids)


def test_drafts_leave_no_trace_and_skip_entropy_model_and_global_transformer() -> None:
    lm = random_blt()
    ids = encode(MULTILINGUAL[:400]).tolist()
    expected = lm.logits(torch.tensor(ids))
    model = cached(lm, 1)
    assert isinstance(model, CachedBLT)
    model.read([ids[:100]])
    for at in range(100, 390, 7):
        before = (model.counts.entropy_model, model.counts.global_transformer)
        for n in range(1, 9):
            guess = model.draft([[*ids[at : at + 1], *range(20, 19 + n)]])
            assert guess.shape == (1, 260)
        assert (model.counts.entropy_model, model.counts.global_transformer) == before
        logits = model.extend([ids[at : at + 7]])
        model.commit([7])
        assert relative(logits[0], expected[at : at + 7]) < 1e-4


def test_memory_is_what_the_caches_take() -> None:
    lm = blt.BLT(TINY_BLT)
    model = cached(lm, 1)
    rings = sum(memory.nbytes for ring in model.rings for memory in ring.memory)
    assert CachedBLT.memory(lm, 0) >= rings
    for length in (100, 1001):  # each byte a patch
        model = cached(random_blt(rule="byte"), 1)
        assert isinstance(model, CachedBLT)
        reserved = CachedBLT.memory(model.model, length)
        model.read([encode(b"a" * length).tolist()])
        rings = sum(memory.nbytes for ring in model.rings for memory in ring.memory)
        (text,) = model.texts
        assert text.patches is not None
        assert rings + text.patches.memory.nbytes <= reserved


def test_a_rule_that_needs_the_whole_text_is_refused() -> None:
    with pytest.raises(ValueError, match="bpe"):
        cached(random_blt(rule="bpe"), 1)


@given(st.sampled_from(RULES), st.booleans(), st.binary(max_size=500), st.data())
def test_a_text_read_in_pieces_of_any_size_has_the_logits_of_one_forward(
    rule: str, reset: bool, noise: bytes, data: st.DataObject
) -> None:
    """Pieces wider than a step, and wider than the window; lines, and letters repeated."""
    lm = random_blt(rule=rule, newline_reset=reset and rule in ENTROPY_RULES, max_patch_length=9)
    text = data.draw(st.permutations([noise, b"a" * 90, MULTILINGUAL[:120], b"\nb\n" * 9]))
    ids = encode(b"".join(text))
    expected = lm.logits(ids)
    model = cached(lm, 2)
    model.read([encode(b"beside").tolist()])
    at = data.draw(st.integers(1, 200))
    model.prefill([ids[:at].tolist()])
    while at < len(ids):
        size = data.draw(st.integers(1, 300))
        model.read_on(1, ids[at : at + size].tolist())
        at = min(at + size, len(ids))
        assert relative(model.logits[1], expected[at - 1]) < 1e-4
    assert (
        relative(steps(model, [80], 1)[0], lm.logits(torch.cat((ids, ids.new_tensor([80]))))[-1])
        < 1e-4
    )


@given(st.lists(st.integers(1, 90), min_size=1, max_size=6))
def test_a_byte_model_reads_in_pieces_of_any_size(sizes: list[int]) -> None:
    torch.manual_seed(0)
    lm = blt.ByteLM(TINY)
    ids = encode(MULTILINGUAL[: sum(sizes)])
    expected = lm.logits(ids)
    model = cached(lm, 1)
    model.read([ids[:1].tolist()])
    at = 1
    for size in sizes:
        model.read_on(0, ids[at : at + size].tolist())
        at += size
        assert relative(model.logits[0], expected[at - 1]) < 1e-4


@pytest.mark.parametrize("native", [True, False])
@pytest.mark.parametrize("n", [1, 5])
def test_a_step_sees_exactly_the_window(native: bool, n: int) -> None:
    """What lies a byte behind the window of the only layer matters to nothing; what lies on its
    edge does."""
    from blt.generate.cpp import library
    from blt.generate.weights import packed

    if native and library() is None:
        pytest.skip("no C++ compiler")
    torch.manual_seed(0)
    lm = blt.ByteLM(TINY).eval()
    window, at = TINY.sliding_window, TINY.sliding_window + 9
    model = cached(packed(lm, "float32", native), 1)

    def logits(changed: int | None) -> torch.Tensor:
        ids = encode(MULTILINGUAL[: at + n]).tolist()
        if changed is not None:
            ids[changed] = 259 if ids[changed] != 259 else 258
        model.read([ids[:at]])
        found = model.extend([ids[at : at + n]])[0, 0]
        model.drop(0)
        return found

    plain = logits(None)
    assert torch.equal(logits(at - window), plain)
    assert relative(logits(at - window + 1), plain) > 1e-6
