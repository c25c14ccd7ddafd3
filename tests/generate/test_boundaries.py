"""A text that is still being written is cut as the whole text would be."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from blt.generate.boundaries import INCREMENTAL, Boundaries
from blt.patching import PatchingConfig, decide
from blt.vocab import encode

LEVELS = (0.0, 0.5, 1.0, 1.5)  # exact in binary: entropies and their rises often equal θ


def streamed(config: PatchingConfig, data: bytes, entropies: list[float]) -> list[bool]:
    """What is decided after each id, and before the first."""
    table = None
    if config.rule == "lookup":
        table = torch.arange(260**config.lookup_order) % 3 == 0
    now, found = Boundaries(config, table), [True]
    for token_id, entropy in zip(encode(data).tolist(), entropies, strict=True):
        now = now.read(token_id, entropy)
        found.append(now.opens)
    return found


@pytest.mark.parametrize("rule", INCREMENTAL)
@given(
    data=st.binary(max_size=30),
    draws=st.lists(st.sampled_from(LEVELS), min_size=31, max_size=31),
    threshold=st.sampled_from(LEVELS),
    add=st.sampled_from(LEVELS),
    longest=st.sampled_from((None, 1, 3)),
)
def test_each_decision_is_that_of_the_whole_text(
    rule: str,
    data: bytes,
    draws: list[float],
    threshold: float,
    add: float,
    longest: int | None,
) -> None:
    config = PatchingConfig(
        rule,  # type: ignore[arg-type]
        threshold=threshold,
        threshold_add=add,
        stride=3,
        lookup_order=1,
        max_patch_length=longest,
    )
    entropies = draws[: len(data) + 1]
    table = (torch.arange(260) % 3 == 0, 1)
    whole = decide(config, encode(data), torch.tensor(entropies), lookup=table)
    assert streamed(config, data, entropies) == whole.tolist()


@pytest.mark.parametrize("rule", ["entropy", "entropy-monotonic", "entropy-combined"])
def test_an_entropy_at_the_threshold_opens_no_patch(rule: str) -> None:
    """Strictly above (paper §2.3): at positions from the third on, after equal steps of 0.5."""
    config = PatchingConfig(rule, threshold=0.5, threshold_add=0.5)  # type: ignore[arg-type]
    at = {"entropy": [0.5] * 6, "entropy-monotonic": [0.0, 0.0, 0.5, 1.0, 1.5, 2.0]}
    entropies = at.get(rule, [1.0, 1.0, 1.5, 2.0, 2.5, 3.0])
    expected = [True, True, False, False, False, False, False]
    assert decide(config, encode(b"abcde"), torch.tensor(entropies)).tolist() == expected
    assert streamed(config, b"abcde", entropies) == expected
