"""The count model prices text as its slow form does."""

from __future__ import annotations

import math
from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from tools.texts.counted import ORDER, bits_per_byte

texts = st.lists(st.sampled_from(b"abc\xff"), min_size=ORDER + 1, max_size=60).map(bytes)


def _slow(train: bytes, heldout: bytes) -> float:
    bits = 0.0
    for at in range(ORDER, len(heldout)):
        chance = 1 / 256
        for order in range(ORDER + 1):
            context = heldout[at - order : at]
            places = [i for i in range(ORDER, len(train)) if train[i - order : i] == context]
            after = Counter(train[i] for i in places)
            if places:
                weight = len(places) + len(after)
                chance = (after[heldout[at]] + len(after) * chance) / weight
        bits -= math.log2(chance)
    return bits / (len(heldout) - ORDER)


@given(texts, texts)
def test_the_mixture_of_orders(train: bytes, heldout: bytes) -> None:
    assert math.isclose(bits_per_byte(train, heldout), _slow(train, heldout))
