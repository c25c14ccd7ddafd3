"""Boundaries: every rule against a slow one in plain Python, and the promises they all keep."""

from __future__ import annotations

import math
import string
from collections.abc import Callable

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import blt
from blt import patching
from blt.patching import PatchingConfig, decide
from blt.patching.deciding import rule_of
from blt.patching.rules import Place
from blt.patching.thresholds import threshold_for
from blt.vocab import OFFSET, VOCAB_SIZE

INCREMENTAL = ["entropy", "entropy-monotonic", "entropy-combined", "space", "static", "byte"]
arbitrary = st.binary(max_size=120)
maximum = st.one_of(st.none(), st.integers(1, 9))


def fake_entropies(ids: torch.Tensor) -> torch.Tensor:
    """A deterministic stand-in for a causal model: a function of the last two ids."""
    before = torch.cat((ids[:1] * 0, ids[:-1]))
    return ((ids * 31 + before * 17) % 97).float() / 97 * 5


def slow(config: PatchingConfig, ids: list[int], h: list[float]) -> list[bool]:
    """The rules of docs/semantics.md, one position at a time."""

    def space_like(i: int) -> bool:
        byte = ids[i] - 4
        if byte < 0:
            return True
        char = chr(byte)
        latin = byte < 128 and (char.isalpha() or char.isdigit())
        return not (latin or 0x80 <= byte <= 0xBF)

    def holds(t: int) -> bool:
        rise = h[t] - h[t - 1]
        return {
            "entropy": h[t] > config.threshold,
            "entropy-monotonic": rise > config.threshold,
            "entropy-combined": h[t] > config.threshold and rise > config.threshold_add,
            "space": space_like(t) and not space_like(t - 1),
            "static": t % config.stride == 0,
            "byte": True,
        }[config.rule]

    decisions = [True]
    opened = 0
    for position in range(1, len(ids) + 1):
        longest = config.max_patch_length
        starts = position == 1 or holds(position - 1)
        starts = starts or (longest is not None and position - opened == longest)
        if starts:
            opened = position
        decisions.append(starts)
    return decisions


def configs(rule: str, longest: int | None, stride: int = 4) -> PatchingConfig:
    threshold = 0.3 if rule == "entropy-monotonic" else 2.5
    return PatchingConfig(
        rule=rule,  # type: ignore[arg-type]
        threshold=threshold,
        threshold_add=0.4,
        stride=stride,
        max_patch_length=longest,
    )


@pytest.mark.parametrize(
    ("rule", "entropies", "opens"),
    [
        ("entropy", [0.0, 1.0, 1.5], [False, True]),
        ("entropy-monotonic", [0.0, 1.0, 2.5], [False, True]),
        ("entropy-combined", [0.5, 1.0, 1.5, 2.5], [False, False, True]),
    ],
)
def test_an_entropy_or_rise_at_the_threshold_starts_no_patch(
    rule: str, entropies: list[float], opens: list[bool]
) -> None:
    config = PatchingConfig(rule, threshold=1.0, threshold_add=0.5)  # type: ignore[arg-type]
    ids = blt.encode(b"x" * (len(entropies) - 1))
    assert decide(config, ids, torch.tensor(entropies))[2:].tolist() == opens


def test_letters_digits_and_continuation_bytes_are_all_that_is_not_space_like() -> None:
    apart = [id_ - 4 for id_ in range(260) if not patching.is_space_like(torch.tensor(id_))]
    assert bytes(apart[:62]) == (b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz")
    assert apart[62:] == list(range(0x80, 0xC0))


@pytest.mark.parametrize("rule", INCREMENTAL)
@given(data=arbitrary, longest=maximum, stride=st.integers(1, 7))
def test_rule_equals_its_definition(
    rule: str, data: bytes, longest: int | None, stride: int
) -> None:
    ids = blt.encode(data)
    h = fake_entropies(ids)
    config = configs(rule, longest, stride)
    assert decide(config, ids, h).tolist() == slow(config, ids.tolist(), h.tolist())


@pytest.mark.parametrize("rule", [*INCREMENTAL, "lookup"])
@given(data=arbitrary, cut=st.integers(0, 120), longest=maximum)
def test_patching_a_prefix_is_the_prefix_of_the_patching(
    rule: str, data: bytes, cut: int, longest: int | None
) -> None:
    ids = blt.encode(data)
    end = min(len(ids), cut + 1)
    table = torch.rand(260**2, generator=torch.Generator().manual_seed(0)) < 0.3
    config = configs(rule, longest)
    whole = decide(config, ids, fake_entropies(ids), lookup=table)
    prefix = decide(config, ids[:end], fake_entropies(ids[:end]), lookup=table)
    assert torch.equal(prefix, whole[: end + 1])


@given(st.lists(st.integers(1, 9), min_size=1, max_size=30))
def test_the_three_views_are_the_same_boundaries(lengths: list[int]) -> None:
    given_lengths = torch.tensor(lengths)
    starts = patching.lengths_to_starts(given_lengths)
    ids = patching.starts_to_ids(starts)
    assert patching.starts_to_lengths(starts).tolist() == lengths
    assert torch.equal(patching.ids_to_starts(ids), starts)
    assert torch.bincount(ids).tolist() == lengths


@given(data=arbitrary, longest=st.integers(1, 9))
def test_no_patch_is_longer_than_asked(data: bytes, longest: int) -> None:
    config = PatchingConfig(rule="entropy", threshold=9.0, max_patch_length=longest)
    ids = blt.encode(data)
    starts = decide(config, ids, fake_entropies(ids))[:-1]
    assert int(patching.starts_to_lengths(starts).max()) <= longest


def test_what_is_space_like_is_so_for_every_id() -> None:
    """All but Latin letters, digits and UTF-8's continuation bytes; special ids are."""
    word = {*string.ascii_letters.encode(), *string.digits.encode(), *range(0x80, 0xC0)}
    expected = [token_id < OFFSET or token_id - OFFSET not in word for token_id in range(260)]
    assert patching.is_space_like(torch.arange(260)).tolist() == expected


def test_lookup_reads_the_last_ids_oldest_first() -> None:
    table = torch.zeros(260**2, dtype=torch.bool)
    a, b = ord("a") + 4, ord("b") + 4
    table[a * 260 + b] = True  # after "ab"
    ids = blt.encode("abbab")
    decisions = decide(PatchingConfig(rule="lookup"), ids, lookup=table)
    assert decisions.tolist() == [True, True, False, True, False, False, True]


def test_a_table_that_documents_are_cut_by_elsewhere_stays_where_it_was() -> None:
    """Steps that were captured go on reading it there, and the host its own copy."""
    table = torch.zeros(VOCAB_SIZE, dtype=torch.bool)
    table[7] = True
    rule = rule_of(PatchingConfig("lookup", lookup_order=1), table)
    ids = torch.tensor([7, 8])
    there = ids.to("meta")
    assert rule.holds(there, there.float()).device.type == "meta"
    assert rule.table is table
    assert rule.holds(ids, ids.float()).tolist() == [True, False]
    assert [rule.holds_at(Place(1, (token,), 0.0, 0.0)) for token in (7, 8)] == [True, False]


@given(st.lists(st.binary(max_size=40), max_size=4), st.integers(1, 3))
def test_lookup_entropies_are_means_and_back_off_to_fewer_bytes(
    texts: list[bytes], order: int
) -> None:
    documents = [(ids, fake_entropies(ids)) for ids in map(blt.encode, texts)]
    table = patching.lookup_entropies(documents, order)
    assert len(table) == 260**order
    seen = [
        (tuple(([0] * order + ids.tolist())[t + 1 : t + 1 + order]), float(h[t]))
        for ids, h in documents
        for t in range(len(ids))
    ]
    for gram in [*{gram for gram, _ in seen}, (7,) * order, (1, 9, 50)[-order:]]:
        expected = 0.0
        for n in range(order, 0, -1):
            found = [h for other, h in seen if other[-n:] == gram[-n:]]
            if found:
                expected = sum(found) / len(found)
                break
        key = sum(value * 260**back for back, value in enumerate(reversed(gram)))
        assert float(table[key]) == pytest.approx(expected, rel=1e-4, abs=1e-6)


def test_bpe_boundaries_are_where_tokens_start() -> None:
    words: Callable[[bytes], list[int]] = lambda data: [0, 5, 10]  # noqa: E731
    decisions = decide(PatchingConfig(rule="bpe"), blt.encode("aaaaabbbbbcc"), bpe=words)
    assert decisions.nonzero().flatten().tolist() == [0, 1, 6, 11]


@pytest.mark.parametrize("target", [1.5, 3.0, 4.5, 8.0])
@pytest.mark.parametrize("rule", ["entropy", "entropy-monotonic", "entropy-combined"])
def test_calibration_reaches_its_target(rule: str, target: float) -> None:
    generator = torch.Generator().manual_seed(1)
    documents = []
    for length in (3000, 700, 1, 5000):
        ids = torch.randint(4, 260, (length,), generator=generator)
        documents.append((ids, torch.rand(length, generator=generator) * 5))
    config = PatchingConfig(rule=rule, threshold_add=-9.0)  # type: ignore[arg-type]
    config = threshold_for(documents, target, config)
    starts = torch.cat([decide(config, ids, h)[:-1] for ids, h in documents])
    size = patching.mean_patch_size(len(starts), int(starts.sum()), len(documents))
    assert math.isclose(size, target, rel_tol=0.02)


@pytest.mark.parametrize(("target", "reached"), [(1.2, 1.0), (3.9, 1.0), (4.1, 7.0), (9.0, 7.0)])
def test_calibration_takes_the_nearest_size_where_entropies_leave_a_gap(
    target: float, reached: float
) -> None:
    ids = blt.encode(b"xxxxxxx")
    config = threshold_for([(ids, torch.ones(len(ids)))], target, PatchingConfig())
    starts = decide(config, ids, torch.ones(len(ids)))[:-1]
    assert patching.mean_patch_size(len(starts), int(starts.sum())) == reached


@pytest.mark.parametrize(
    ("rule", "missing"), [("entropy", "entropy model"), ("lookup", "table"), ("bpe", "tokenizer")]
)
def test_a_rule_without_what_it_needs_says_so(rule: str, missing: str) -> None:
    with pytest.raises(ValueError, match=missing):
        decide(PatchingConfig(rule=rule), blt.encode("text"))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("documents", "target", "rule", "named"),
    [
        ([], 4.5, "entropy", "no bytes"),
        ([(torch.tensor([1, 9]), torch.ones(2))], 0.5, "entropy", "at least 1 byte"),
        ([(torch.tensor([1, 9]), torch.ones(2))], 4.5, "space", "threshold"),
    ],
)
def test_impossible_calibrations_are_refused(
    documents: list[tuple[torch.Tensor, torch.Tensor]], target: float, rule: str, named: str
) -> None:
    with pytest.raises(ValueError, match=named):
        threshold_for(documents, target, PatchingConfig(rule=rule))  # type: ignore[arg-type]
