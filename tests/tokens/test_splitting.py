"""Tokens that are split at random stand for the same bytes, and as many are split as asked."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from blt.errors import UserError
from blt.tokens.splitting import SplittingTokenizer
from blt.tokens.tokenizer import ByteTokenizer

TEXT = b"".join(b"%d green bottles standing on the wall; " % n for n in range(300))
WHOLE = ByteTokenizer.train([TEXT], 320)
HALF = SplittingTokenizer(WHOLE, 0.5)


@settings(max_examples=50, deadline=None)
@given(st.one_of(st.binary(max_size=50), st.sampled_from([TEXT[i : i + 99] for i in range(50)])))
def test_a_split_text_has_the_same_bytes(data: bytes) -> None:
    assert HALF.decode(HALF.encode(data)) == data
    assert sum(HALF.sizes[i] for i in HALF.encode(data)) == len(data)


def test_pairs_are_all_ways_to_write_a_token_as_two() -> None:
    tokens = WHOLE.tokens()
    for i, data in enumerate(tokens):
        slow = {
            (a, b)
            for a, left in enumerate(tokens)
            for b, right in enumerate(tokens)
            if left and right and len(left) + len(right) == len(data) and left + right == data
        }
        assert set(HALF.pairs.get(i, [])) == slow
        assert bool(slow) == (len(data) > 1)  # a merge can always be undone


def test_as_many_tokens_are_split_as_asked_and_others_each_time() -> None:
    ids = WHOLE.encode(TEXT)
    can = sum(i in HALF.pairs for i in ids)
    for share in (0.0, 0.1, 0.5, 1.0):
        tokenizer = SplittingTokenizer(WHOLE, share, seed=3)
        once, again = tokenizer.encode(TEXT), tokenizer.encode(TEXT)
        assert len(once) - len(ids) == pytest.approx(
            share * can, abs=1 + 4 * (share * (1 - share) * can) ** 0.5
        )
        if 0 < share < 1:
            assert once != again
        assert once == SplittingTokenizer(WHOLE, share, seed=3).encode(TEXT)


def test_an_impossible_share_is_refused() -> None:
    with pytest.raises(UserError, match=r"must lie in 0\.\.1"):
        SplittingTokenizer(WHOLE, 1.5)
