"""A table made from counts is what the plain formula says, in whatever order the text comes."""

from __future__ import annotations

import math
from collections import Counter

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import blt
from blt.errors import UserError
from blt.patching import Patcher
from blt.patching.calibration import learn_lookup_table
from blt.patching.counts import count_entropies
from blt.patching.thresholds import table_threshold
from blt.vocab import OFFSET

TEXTS = [
    b"the cat sat on the mat, ",
    b"and the rat ate that. ",
    "日本語の文字".encode(),
    b"\x00\xff",
]
documents = st.lists(st.binary(max_size=30) | st.text("ab ", max_size=30).map(str.encode))


def chance(texts: list[bytes], context: tuple[int, ...], next_byte: int) -> float:
    """Witten and Bell's estimate, from the text itself."""
    after: Counter[int] = Counter()
    for text in texts:
        ids = [0] * len(context) + [1] + [byte + OFFSET for byte in text]
        for at in range(len(context) + 1, len(ids)):
            if tuple(ids[at - len(context) : at]) == context:
                after[ids[at] - OFFSET] += 1
    fewer = chance(texts, context[1:], next_byte) if context else 1 / 256
    weight = after.total() + len(after)
    return (after[next_byte] + len(after) * fewer) / weight if weight else fewer


@given(documents, st.integers(1, 3), st.data())
def test_entropies_are_those_of_the_plain_formula(
    texts: list[bytes], order: int, draw: st.DataObject
) -> None:
    found = count_entropies([blt.encode(text) for text in texts], order)
    assert len(found) == 260**order
    places = [([0] * order + blt.encode(text).tolist())[at:] for text in texts for at in range(9)]
    seen = [tuple(place[:order]) for place in places if len(place) >= order]
    context = draw.draw(st.sampled_from([*seen, (7,) * order, (0, 99, 101)[-order:]]))
    chances = [chance(texts, context, byte) for byte in range(256)]
    assert sum(chances) == pytest.approx(1)
    key = sum(value * 260**back for back, value in enumerate(reversed(context)))
    expected = -sum(p * math.log(p) for p in chances if p > 0)
    assert float(found[key]) == pytest.approx(expected, abs=1e-4)


@given(documents.flatmap(lambda texts: st.tuples(st.just(texts), st.permutations(texts))))
def test_the_order_of_documents_changes_no_table(
    orders: tuple[list[bytes], list[bytes]],
) -> None:
    one, other = ([*texts, b"ab ba"] for texts in orders)
    config = blt.PatchingConfig("lookup")
    whole = {"sample_bytes": None}
    first, second = (
        learn_lookup_table(None, texts, 3.0, config, **whole) for texts in (one, other)
    )
    assert first[0] == second[0]
    assert torch.equal(first[1], second[1])


@pytest.mark.parametrize("longest", [None, 5])
@pytest.mark.parametrize("target", [1.0, 2.0, 3.0, 50.0])
def test_no_threshold_is_nearer_to_the_target(target: float, longest: int | None) -> None:
    config = blt.PatchingConfig("lookup", max_patch_length=longest)
    found, table = learn_lookup_table(None, TEXTS, target, config)
    ids = [blt.encode(text) for text in TEXTS]
    values = count_entropies(ids, 2)
    assert torch.equal(table, values > found.threshold)

    def off(table: torch.Tensor) -> float:
        return abs(Patcher(config, table=table).mean_patch_size(TEXTS) - target)

    others = [*torch.unique(values).tolist(), -1.0]
    assert off(table) == min(off(values > threshold) for threshold in others)


def test_what_cannot_be_learned_from_is_said() -> None:
    config = blt.PatchingConfig("lookup")
    with pytest.raises(UserError, match="no bytes"):
        learn_lookup_table(None, [b""], 4.0, config)
    with pytest.raises(UserError, match="at least 1"):
        learn_lookup_table(None, TEXTS, 0.5, config)
    with pytest.raises(UserError, match="no bytes"):
        table_threshold(torch.zeros(260), [], 4.0)
