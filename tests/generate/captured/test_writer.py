"""Captured steps write what the steps write that the host drives, and hardly ask the host."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import blt
from blt.errors import UserError
from blt.generate import Engine, Generation, Sampling
from blt.generate.captured.choice import Needs
from blt.generate.captured.writer import CapturedWriter
from blt.generate.incremental_blt import CachedBLT
from blt.patching.rules import RULES, Rule
from operations import Operations
from shapes import TINY, random_blt, tiny_config
from texts import MULTILINGUAL


def written(
    lm: blt.BLT | blt.ByteLM,
    captured: bool,
    prompts: list[bytes],
    samplings: list[Sampling],
    max_batch: int = 3,
    **options: Any,
) -> list[Generation]:
    engine = Engine(lm, max_batch=max_batch, captured=captured, native=False, **options)
    handles = [engine.submit(p, s) for p, s in zip(prompts, samplings, strict=True)]
    engine.run()
    return [handle.result() for handle in handles]


def assert_equal(found: list[Generation], expected: list[Generation]) -> None:
    for one, other in zip(found, expected, strict=True):
        assert one.data == other.data
        assert one.starts == other.starts
        assert one.finish_reason == other.finish_reason
        assert (one.drafted, one.accepted) == (other.drafted, other.accepted)
        assert one.prompt_patches == other.prompt_patches
        assert one.logprobs == pytest.approx(other.logprobs, abs=1e-3)


SAMPLINGS = [
    Sampling(max_bytes=20),
    Sampling(max_bytes=20, temperature=1.0, seed=1),
    Sampling(max_bytes=18, temperature=0.8, top_k=20, top_p=0.9, repetition_penalty=1.2, seed=2),
    Sampling(max_bytes=20, temperature=1.0, min_p=0.01, valid_utf8=True, ignore_eos=True, seed=3),
]
PROMPTS = [b"", b"hello wor", b"\xff\xfe\n\x00" * 9, MULTILINGUAL[:100]]


@pytest.mark.parametrize(
    "rule",
    [name for name, rule in RULES.items() if rule.incremental and rule.needs != "router"],
)
@pytest.mark.parametrize("draft_bytes", [0, 3])
def test_both_forms_write_the_same_bytes(rule: str, draft_bytes: int) -> None:
    lm = random_blt(rule=rule, newline_reset=rule.startswith("entropy"), max_patch_length=6)
    both = [
        written(lm, captured, PROMPTS, SAMPLINGS, draft_bytes=draft_bytes)
        for captured in (True, False)
    ]
    assert_equal(*both)


@pytest.mark.parametrize(
    "changes",
    [
        {"encoder_cross_attention": "none"},
        {"decoder_cross_attention": "none"},
        {"decoder_cross_attention": "first", "cross_attention_k": 3},
        {"encoder_layers": 2, "encoder_cross_attention": "all", "hash_ngram_sizes": ()},
        {"global_dim": 48, "hash_functions": 2},
    ],
)
def test_models_of_every_shape_are_written_with(changes: dict[str, Any]) -> None:
    torch.manual_seed(0)
    lm = blt.BLT(tiny_config(**changes)).eval()
    both = [written(lm, captured, PROMPTS, SAMPLINGS, draft_bytes=2) for captured in (True, False)]
    assert_equal(*both)


def test_patches_and_their_number_may_outgrow_the_room_at_first(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("blt.generate.captured.rooms.FIRST_OPEN", 64)
    samplings = [Sampling(max_bytes=n, ignore_eos=True) for n in (100, 45)]
    for lm in (random_blt(rule="static", stride=200), random_blt(rule="byte")):
        for draft_bytes in (0, 5):
            both = [
                written(
                    lm, captured, [b"ab", MULTILINGUAL[:30]], samplings, draft_bytes=draft_bytes
                )
                for captured in (True, False)
            ]
            assert_equal(*both)


@pytest.mark.parametrize("max_bytes", [34, 66, 80])
@pytest.mark.parametrize("rule", ["byte", "static"])
def test_drafts_that_are_kept_beyond_the_end_have_room(rule: str, max_bytes: int) -> None:
    lm = random_blt(rule=rule, stride=4)
    with torch.no_grad():
        lm.decoder.head.weight.zero_()  # so the first byte is always the best, and all are kept
    sampling = [Sampling(max_bytes=max_bytes, ignore_eos=True)]
    both = [written(lm, how, [b"ab"], sampling, draft_bytes=31) for how in (True, False)]
    assert_equal(*both)
    assert both[0][0].accepted > max_bytes // 2


@pytest.mark.parametrize(("stride", "longest"), [(5, 4), (7, 3), (3, 8), (4, 4), (6, 1)])
def test_a_stride_that_is_split_has_as_many_patches_as_are_counted(
    stride: int, longest: int
) -> None:
    lm = random_blt(rule="static", stride=stride, max_patch_length=longest)
    for length in (1, 50, 300):
        cut = lm.patcher.cut(b"a" * length)
        assert len(cut.lengths) <= CachedBLT.most_patches(lm, length)
    sampling = [Sampling(max_bytes=130, ignore_eos=True)]
    assert_equal(*(written(lm, how, [b"ab"], sampling) for how in (True, False)))


def test_a_byte_model_is_written_with_in_captured_steps_too() -> None:
    torch.manual_seed(0)
    lm = blt.ByteLM(TINY)
    both = [written(lm, captured, PROMPTS, SAMPLINGS) for captured in (True, False)]
    assert_equal(*both)


@settings(max_examples=8)
@given(st.lists(st.integers(0, 4), min_size=1, max_size=6), st.integers(1, 4))
def test_drafts_are_each_text_s_own(drafts: list[int], max_batch: int) -> None:
    lm = random_blt()
    results = []
    for captured in (True, False):
        engine = Engine(lm, max_batch=max_batch, captured=captured, native=False)
        handles = [
            engine.submit(b"x%d" % seed, max_bytes=20, temperature=1.0, seed=seed, draft_bytes=k)
            for seed, k in enumerate(drafts)
        ]
        engine.run()
        results.append([(handle.result().data, handle.piece().kept) for handle in handles])
    assert results[0] == results[1]


def test_a_prompt_that_is_read_beside_texts_is_not_touched_by_the_row_it_will_take() -> None:
    """Steps for three texts take four rows, and in the fourth lies what was read of a prompt."""
    lm, prompt = random_blt(), MULTILINGUAL[:150]  # longer than a ring, so all its slots are seen
    engine = Engine(lm, max_batch=4, captured=True)
    engine._reader.written = lambda seconds: setattr(engine._reader, "_owed", 0.0)  # one a step
    others = [engine.submit(b"%d" % i, max_bytes=60, ignore_eos=True) for i in range(3)]
    gone = engine.submit(b"a text that had the row before", max_bytes=2, ignore_eos=True)
    while not gone.finished:
        engine.step()
    handle = engine.submit(prompt, max_bytes=9)
    begun = 0
    while engine.step():
        begun += bool(engine._reader.begun)
    assert begun > 1
    assert all(len(other.result().data) == 60 for other in others)
    assert_equal([handle.result()], written(lm, False, [prompt], [Sampling(max_bytes=9)]))


# --- what it asks of the host -------------------------------------------------------------------

ASKS = ("_local_scalar_dense", "nonzero", "masked_select", "unique", "equal.default", "item")


def writer_of(engine: Engine) -> CapturedWriter:
    assert isinstance(engine._writer, CapturedWriter)
    return engine._writer


@pytest.mark.parametrize("draft_bytes", [0, 3])
def test_the_host_reads_once_for_each_step_of_all_texts(draft_bytes: int) -> None:
    engine = Engine(random_blt(), max_batch=4, captured=True, draft_bytes=draft_bytes)
    writer, rounds = writer_of(engine), 0
    handles = [engine.submit(b"%d" % i, max_bytes=20 + i, ignore_eos=True) for i in range(4)]
    while engine.step():
        rounds += 1
    assert rounds - 1 <= writer.mirror.reads <= rounds + 1
    if not draft_bytes:
        assert writer.mirror.reads == 23  # bytes of the longest
    assert all(handle.finished for handle in handles)


class Watched:
    """Launches steps, and counts the operations of each."""

    def __init__(self) -> None:
        self.steps: dict[str, Operations] = {}

    def __call__(self, step: Any, *arguments: Any) -> None:
        self.steps[step.__name__] = Operations()
        with self.steps[step.__name__]:
            step(*arguments)

    def forget(self, *names: str) -> None:
        pass


@pytest.mark.parametrize("draft_bytes", [0, 2])
def test_no_step_asks_the_host_or_replaces_what_others_work_on(draft_bytes: int) -> None:
    engine = Engine(random_blt(rule="byte"), max_batch=2, captured=True, draft_bytes=draft_bytes)
    writer, watched = writer_of(engine), Watched()
    writer.launch = watched  # type: ignore[assignment]
    for options in ({}, {"temperature": 1.0, "top_k": 9, "repetition_penalty": 1.1}):
        engine.submit(b"text", max_bytes=40, ignore_eos=True, **options)
    engine.step()
    addresses = set()
    for _ in range(6):
        engine.step()
        steps: Any = writer.steps
        kept = [*steps._work.values(), steps.texts, steps.patching]
        tensors = [x for rows in kept for _, x, _ in rows.tensors()]
        tensors += [steps.seeing.memory, steps.patches.memory]
        addresses.add(tuple(x.data_ptr() for x in tensors))
    drafted = {"guess"} if draft_bytes else set()
    assert watched.steps.keys() == {"cut", "encode", "close", "write", *drafted}
    for operations in watched.steps.values():
        assert not [name for name in operations.counts if any(ask in name for ask in ASKS)]
    assert len(addresses) == 1


CEILINGS = {"cut": 159, "encode": 88, "close": 313, "write": 238}  # operations of the default shape


def test_a_byte_of_the_default_shape_takes_no_more_operations_than_were_counted() -> None:
    """Each is a launch on a GPU where nothing is fused; views are none."""
    torch.manual_seed(0)
    lm = blt.BLT(blt.Config(hash_rows=100, patching=blt.PatchingConfig(threshold=-1.0)))
    engine = Engine(lm.eval(), max_batch=1, captured=True)
    writer, watched = writer_of(engine), Watched()
    engine.submit(b"text", max_bytes=9, ignore_eos=True)
    engine.step()
    writer.launch = watched  # type: ignore[assignment]
    engine.step()
    found = {name: operations.launches for name, operations in watched.steps.items()}
    assert all(found[name] <= CEILINGS[name] for name in CEILINGS), found


# --- rooms --------------------------------------------------------------------------------------


def test_caches_take_no_more_than_the_requests_reserved(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("blt.generate.captured.rooms.FIRST_OPEN", 32)
    long = random_blt(rule="static", stride=200)
    for lm in (random_blt(rule="byte"), random_blt(rule="static", stride=3), long):
        engine = Engine(lm, max_batch=4, captured=True)
        writer = writer_of(engine)
        for length in (300, 40, 10):
            engine.submit(b"a" * length, max_bytes=50, ignore_eos=True)
        reserved = writer.memory([*engine._admission.waiting])
        while engine.step():
            steps: Any = writer.steps
            assert isinstance(engine.model, CachedBLT)
            rings = sum(ring.memory[0].nbytes for ring in engine.model.rings)
            taken = steps.patches.memory.nbytes
            if steps.patching.open.shape[3] > 32:  # what all rows have for a start is no text's
                taken += steps.patching.open.nbytes
            assert taken <= reserved - 4 * rings + 2**16


def test_the_room_of_a_long_patch_goes_with_its_text(monkeypatch: pytest.MonkeyPatch) -> None:
    """Others that come later have not each as much, and write what they write alone."""
    monkeypatch.setattr("blt.generate.captured.rooms.FIRST_OPEN", 128)
    lm, rooms = random_blt(rule="static", stride=2000), []
    prompts = [MULTILINGUAL[:50] * 20, *(MULTILINGUAL[i : i + 40] for i in range(4))]
    engine = Engine(lm, max_batch=4, captured=True, native=False)
    steps: Any = writer_of(engine).steps
    handles = [engine.submit(prompts[0], max_bytes=20, ignore_eos=True)]
    while engine.step():
        rooms.append(tuple(steps.patching.open.shape[::3]))
    handles += [engine.submit(prompt, max_bytes=20, ignore_eos=True) for prompt in prompts[1:]]
    while engine.step():
        rooms.append(tuple(steps.patching.open.shape[::3]))
    assert set(rooms) == {(1, 2048), (4, 128)}
    plain = written(lm, False, prompts, [Sampling(max_bytes=20, ignore_eos=True)] * 5, 4)
    assert_equal([handle.result() for handle in handles], plain)


def test_a_rule_that_needs_the_host_is_said_to_on_a_gpu_and_refused_if_asked_for(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(RULES["space"], "holds_each", Rule.holds_each)
    lm = random_blt(rule="space")
    with pytest.raises(UserError, match="'space' has no holds_each"):
        Engine(lm, captured=True)
    monkeypatch.setattr("blt.generate.engine._on_gpu", lambda model: True)
    engine = Engine(lm)
    assert "the host's help, slowly: the patching rule 'space' has no holds_each" in caplog.text
    assert engine.submit(b"x", max_bytes=3, ignore_eos=True).result().finish_reason == "length"


def test_on_a_gpu_prompts_are_read_in_the_precision_that_steps_are_taken_in(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    lm, prompt = random_blt(), MULTILINGUAL[:1500]
    monkeypatch.setattr("blt.generate.incremental.PIECE_BYTES", 64)
    logits = {}
    for on_gpu in (False, True):
        monkeypatch.setattr("blt.generate.engine._on_gpu", lambda model, value=on_gpu: value)
        for precision in ("float32", "bfloat16"):
            engine = Engine(lm, precision=precision, native=False, captured=True)
            logits[on_gpu, precision] = engine.read(prompt).logits
            text = engine.submit(prompt, max_bytes=9, ignore_eos=True).result()
            assert text.finish_reason == "length"
    assert torch.equal(logits[True, "float32"], logits[False, "float32"])
    narrow, wide = logits[True, "bfloat16"], logits[False, "bfloat16"]
    assert not torch.equal(narrow, wide)
    torch.testing.assert_close(narrow, wide, rtol=0.05, atol=0.05)


def test_what_no_text_needs_is_left_out_of_the_choice() -> None:
    greedy, drawn = Sampling(), Sampling(temperature=1.0)
    assert Needs.of([greedy, Sampling(top_k=3)]) == (False, False, False)
    assert Needs.of([greedy, drawn]) == (True, False, False)
    assert Needs.of([drawn, Sampling(temperature=0.5, top_p=0.5)]) == (True, True, False)
    assert Needs.of([Sampling(repetition_penalty=1.1)]) == (False, False, True)
