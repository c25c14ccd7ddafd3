"""Boundaries decided one byte at a time are those of the whole text."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from blt import encode
from blt.patching import Patcher, PatchingConfig, decide
from blt.patching.rules import RULES as KNOWN
from blt.patching.streaming import Boundaries, contexts_after, opens_after

RULES = (
    *("entropy", "entropy-monotonic", "entropy-combined"),
    *("space", "static", "byte", "lookup", "learned"),
)
LEVELS = (0.0, 0.5, 1.0, 1.5, 2.0)  # few, and exact in floats: thresholds are met exactly


def one_by_one(
    config: PatchingConfig, ids: list[int], entropies: list[float], table: torch.Tensor | None
) -> list[bool]:
    """[T + 1] as of ``decide``."""
    boundaries = Patcher(config, table=table).stream()
    opens = [boundaries.opens]
    for token_id, entropy in zip(ids, entropies, strict=True):
        boundaries = boundaries.read(token_id, entropy)
        opens.append(boundaries.opens)
    return opens


@pytest.mark.parametrize("rule", RULES)
@given(
    data=st.binary(max_size=60),
    longest=st.one_of(st.none(), st.integers(1, 6)),
    chance=st.randoms(use_true_random=False),
)
def test_decisions_one_byte_at_a_time_are_those_of_the_whole_text(
    rule: Any, data: bytes, longest: int | None, chance: Any
) -> None:
    config = PatchingConfig(rule, 1.0, 0.5, stride=3, lookup_order=1, max_patch_length=longest)
    ids = encode(data)
    entropies = [chance.choice(LEVELS) for _ in ids]
    table = torch.arange(260) % 3 == 0 if rule == "lookup" else None
    whole = decide(config, ids, torch.tensor(entropies), lookup=table)
    assert one_by_one(config, ids.tolist(), entropies, table) == whole.tolist()


@pytest.mark.parametrize(
    ("rule", "entropies", "opens"),
    [
        ("entropy", [0.0, 1.0, 1.5], [False, True]),
        ("entropy-monotonic", [0.0, 1.0, 2.5], [False, True]),
        ("entropy-combined", [0.5, 1.0, 1.5, 2.5], [False, False, True]),
    ],
)
def test_an_entropy_or_rise_at_the_threshold_starts_no_patch(
    rule: Any, entropies: list[float], opens: list[bool]
) -> None:
    config = PatchingConfig(rule, threshold=1.0, threshold_add=0.5)
    ids = encode(b"x" * (len(entropies) - 1))
    assert one_by_one(config, ids.tolist(), entropies, None)[2:] == opens


@pytest.mark.parametrize("rule", RULES)
@given(
    texts=st.lists(st.binary(min_size=12, max_size=40), min_size=1, max_size=4),
    longest=st.one_of(st.none(), st.integers(1, 6)),
    size=st.integers(1, 5),
    chance=st.randoms(use_true_random=False),
)
def test_texts_cut_together_without_the_host_are_cut_as_alone(
    rule: Any, texts: list[bytes], longest: int | None, size: int, chance: Any
) -> None:
    """Each at its own position, ``size`` ids of every text at a time."""
    config = PatchingConfig(
        rule, 1.0, 0.5, stride=3, lookup_order=2, max_patch_length=longest, newline_reset=True
    )
    table = torch.rand(260**2, generator=torch.Generator().manual_seed(0)) < 0.3
    patcher = Patcher(config, table=table if rule == "lookup" else None)
    alone: list[Boundaries] = []
    rows = [encode(text.replace(b"a", b"\n")).tolist() for text in texts]
    at = [chance.randint(1, 6) for _ in rows]
    for ids, count in zip(rows, at, strict=True):
        boundaries = patcher.stream()
        for token_id in ids[:count]:
            boundaries = boundaries.read(token_id, chance.choice(LEVELS))
        alone.append(boundaries)
    reach = patcher.rule.reach
    recent = torch.tensor(
        [[0, *ids[: n + size]][-(reach - 1 + size) :] for ids, n in zip(rows, at, strict=True)]
    )
    ids = recent[:, -size:]
    positions = torch.tensor(at)[:, None] + torch.arange(size)
    entropies = torch.tensor([[one.entropy, *chance.choices(LEVELS, k=size)] for one in alone])
    opens, rule_starts = opens_after(
        patcher.rule, recent, positions, entropies, torch.tensor([o.rule_start for o in alone])
    )
    contexts = contexts_after(torch.tensor([one.context for one in alone]), ids, positions)
    for row, boundaries in enumerate(alone):
        for j in range(size):
            boundaries = boundaries.read(int(ids[row, j]), float(entropies[row, j + 1]))
            assert bool(opens[row, j]) == boundaries.opens
            assert int(rule_starts[row, j]) == boundaries.rule_start
            assert int(contexts[row, j]) == boundaries.context


def test_every_incremental_rule_cuts_without_the_host() -> None:
    for rule in KNOWN.values():
        assert rule.holds_on_device() == rule.incremental
