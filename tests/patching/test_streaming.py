"""Boundaries decided one byte at a time are those of the whole text."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from blt import encode
from blt.patching import Patcher, PatchingConfig, decide

RULES = ("entropy", "entropy-monotonic", "entropy-combined", "space", "static", "byte", "lookup")
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
    lookup = None if table is None else (table, 1)
    whole = decide(config, ids, torch.tensor(entropies), lookup=lookup)
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
