"""The next byte is drawn from the distribution that was asked for."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from blt import vocab
from blt.generate import utf8
from blt.generate.sampling import Chooser, Sampling, distributions, draw, verify

seeds = st.integers(0, 10_000)


def logits_of(seed: int, spread: float = 2.0) -> np.ndarray:
    return (np.random.default_rng(seed).normal(size=260) * spread).astype(np.float32)


def chooser(prompt: bytes = b"", **options: object) -> Chooser:
    return Chooser.begin(Sampling(**{"temperature": 1.0, **options}), prompt)  # type: ignore[arg-type]


def writable(logits: np.ndarray) -> np.ndarray:
    """Softmax over bytes and EOS, by PyTorch."""
    scores = torch.from_numpy(logits).double()
    scores[[vocab.BOE, vocab.BOS, vocab.BPE]] = -torch.inf
    return torch.softmax(scores, 0).numpy()


@given(seeds)
def test_temperature_one_is_the_softmax_and_zero_the_peak(seed: int) -> None:
    logits = logits_of(seed)
    np.testing.assert_allclose(chooser().probabilities(logits), writable(logits), atol=1e-9)
    greedy = chooser(temperature=0.0).probabilities(logits)
    assert greedy[writable(logits).argmax()] == 1.0
    assert greedy.sum() == 1.0


@given(seeds, st.integers(1, 20))
def test_texts_beside_each_other_have_the_distributions_they_have_alone(
    seed: int, count: int
) -> None:
    chance = random.Random(seed)
    choosers = [
        chooser(
            chance.randbytes(20),
            temperature=chance.choice([0.0, 0.7, 1.0]),
            top_k=chance.choice([None, 9]),
            top_p=chance.choice([1.0, 0.9]),
            repetition_penalty=chance.choice([1.0, 1.3]),
            valid_utf8=chance.random() < 0.3,
            ignore_eos=chance.random() < 0.5,
        )
        for _ in range(count)
    ]
    logits = np.stack([logits_of(seed + row) for row in range(count)])
    alone = [one.probabilities(row) for one, row in zip(choosers, logits, strict=True)]
    assert np.array_equal(distributions(choosers, logits), np.stack(alone))


@given(seeds, st.integers(1, 300))
def test_top_k_keeps_the_k_most_likely(seed: int, k: int) -> None:
    p = chooser(top_k=k).probabilities(logits_of(seed))
    full = writable(logits_of(seed))
    kept = np.argsort(-full)[:k]
    kept = kept[full[kept] > 0]
    assert set(p.nonzero()[0]) == set(kept)
    np.testing.assert_allclose(p[kept], full[kept] / full[kept].sum(), rtol=1e-6)


@given(seeds, st.floats(0.01, 1.0))
def test_top_p_keeps_the_fewest_that_reach_it(seed: int, top_p: float) -> None:
    p = chooser(top_p=top_p).probabilities(logits_of(seed))
    full = writable(logits_of(seed))
    kept = full[p > 0]
    assert kept.sum() >= top_p - 1e-9
    assert kept.sum() - kept.min() < top_p
    assert kept.min() >= full[p == 0].max(initial=0.0)


@given(seeds, st.floats(0.0, 1.0))
def test_min_p_is_relative_to_the_peak(seed: int, min_p: float) -> None:
    p = chooser(min_p=min_p).probabilities(logits_of(seed))
    full = writable(logits_of(seed))
    assert set(p.nonzero()[0]) == set((full >= min_p * full.max()).nonzero()[0]) - {0, 1, 3}


@given(st.binary(max_size=20), st.binary(max_size=20), st.floats(1.01, 3.0), seeds)
def test_repetition_penalty_makes_what_was_there_less_likely(
    prompt: bytes, written: bytes, penalty: float, seed: int
) -> None:
    one = chooser(prompt, repetition_penalty=penalty)
    for byte in written:
        one = one.after(byte + vocab.OFFSET)
    p, full = one.probabilities(logits_of(seed)), writable(logits_of(seed))
    seen = [byte + vocab.OFFSET for byte in set(prompt + written)]
    others = [i for i in range(4, 260) if i not in seen]
    ratio = p / np.where(full > 0, full, 1.0)
    if seen:
        assert ratio[seen].max() <= ratio[others].min() + 1e-9
    np.testing.assert_allclose(ratio[others], ratio[others[0]], rtol=1e-6)


def test_of_bytes_that_are_equally_likely_the_smallest_is_written_greedily() -> None:
    logits = logits_of(4)
    logits[[70, 90, 200]] = 1 + logits.max()
    assert chooser(temperature=0.0).probabilities(logits)[70] == 1.0


class Fixed(random.Random):
    """Gives one number only."""

    def __init__(self, number: float) -> None:
        super().__init__()
        self.number = number

    def random(self) -> float:
        return self.number


@pytest.mark.parametrize(("number", "expected"), [(0.0, 1), (0.49, 1), (0.5, 3), (0.99, 3)])
def test_what_has_no_probability_is_never_drawn(number: float, expected: int) -> None:
    assert draw(np.array([0.0, 0.5, 0.0, 0.5, 0.0]), Fixed(number)) == expected


def test_tiny_temperatures_do_not_overflow() -> None:
    p = chooser(temperature=1e-300).probabilities(logits_of(3, spread=1e4))
    assert p.max() == 1.0


@given(st.binary(max_size=12), seeds)
def test_only_valid_utf8_is_written_and_it_ends_whole(prompt: bytes, seed: int) -> None:
    generator = random.Random(seed)
    rest = utf8.state_of(prompt)
    now = chooser(prompt, valid_utf8=True, max_bytes=9)
    written = bytearray()
    while now.remaining > 0:
        token = draw(now.probabilities(logits_of(generator.randrange(10**6))), generator)
        if token == vocab.EOS:
            break
        written.append(token - vocab.OFFSET)
        now = now.after(token)
    if len(rest) <= 9:
        bytes(written[len(rest) :]).decode()
    if not rest:
        bytes(written).decode()


@pytest.mark.parametrize("character", ["é", "€", "😀"])
def test_a_character_is_begun_where_exactly_all_of_it_fits(character: str) -> None:
    data = character.encode()
    first, logits = data[0] + vocab.OFFSET, np.zeros(260, dtype=np.float32)
    enough = chooser(valid_utf8=True, max_bytes=len(data))
    assert enough.probabilities(logits)[first] > 0
    assert chooser(valid_utf8=True, max_bytes=len(data) - 1).probabilities(logits)[first] == 0
    assert enough.after(ord("a") + vocab.OFFSET).probabilities(logits)[first] == 0


@given(st.text(max_size=30))
def test_every_text_is_allowed(text: str) -> None:
    data = text.encode("utf-8", "ignore")
    rest: tuple[tuple[int, int], ...] | None = utf8.WHOLE
    for byte in data:
        assert rest is not None
        assert not utf8.forbidden(rest, 4)[byte + vocab.OFFSET]
        rest = utf8.after(rest, byte)
    assert rest == utf8.WHOLE


def _is_utf8(data: bytes) -> bool:
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True


def test_every_beginning_of_two_bytes_is_allowed_as_python_has_it() -> None:
    """Surrogates, overlong forms and what lies above U+10FFFF among them."""
    for first in range(256):
        rest = utf8.after(utf8.WHOLE, first)
        for second in range(256):
            # One of these makes characters of whatever may be begun.
            ends = (b"", b"\x80", b"\x80\x80", b"\x80\x80\x80", b"\xa0\x80", b"\x90\x80\x80")
            expected = any(_is_utf8(bytes([first, second]) + end) for end in ends)
            found = rest is not None and utf8.after(rest, second) is not None
            assert found == expected, (first, second)


@given(st.binary(min_size=1, max_size=6))
def test_exactly_the_invalid_is_forbidden(data: bytes) -> None:
    rest: tuple[tuple[int, int], ...] | None = utf8.WHOLE
    for byte in data:
        rest = None if rest is None else utf8.after(rest, byte)
    try:
        data.decode()
        valid = True
    except UnicodeDecodeError as error:
        valid = error.reason == "unexpected end of data" and error.end == len(data)
    assert (rest is not None) == valid


@pytest.mark.parametrize("begun", ["é".encode()[:1], "漢".encode()[:2], "😀".encode()[:3]])
def test_no_text_ends_within_a_character(begun: bytes) -> None:
    for end, allowed in ((b"", False), (b"a", True)):
        mask = utf8.forbidden(utf8.state_of(begun + end), 4)
        assert mask[vocab.EOS] != allowed


def chi_square(counts: np.ndarray, p: np.ndarray) -> tuple[float, int]:
    """Statistic over ids expected at least five times, the others together, and its freedom."""
    expected = p * counts.sum()
    often = expected >= 5
    o = np.append(counts[often], counts[~often].sum())
    e = np.append(expected[often], expected[~often].sum())
    o, e = o[e > 0], e[e > 0]
    assert counts[p == 0].sum() == 0
    return float(((o - e) ** 2 / e).sum()), len(e) - 1


@pytest.mark.parametrize("options", [{}, {"temperature": 0.7}, {"top_k": 20}, {"top_p": 0.8}])
def test_verified_drafts_have_the_distribution_of_the_model(options: dict[str, object]) -> None:
    generator = random.Random(1)
    p = chooser(**options).probabilities(logits_of(1))
    q = chooser(**options).probabilities(logits_of(1) + logits_of(2, spread=0.7))
    counts = np.zeros(260)
    accepted = 0
    for _ in range(100_000):
        drafted = draw(q, generator)
        token = verify(p, q, drafted, generator)
        accepted += token == drafted
        counts[token] += 1
    statistic, freedom = chi_square(counts, p)
    # mean = freedom, variance = 2 * freedom: five deviations away is no chance
    assert statistic < freedom + 5 * (2 * freedom) ** 0.5
    assert accepted / 100_000 == pytest.approx(np.minimum(p, q).sum(), abs=0.01)
    wrong, freedom = chi_square(counts, q + 1e-9)  # the test can tell the two apart
    assert wrong > freedom + 20 * (2 * freedom) ** 0.5


@given(
    seeds,
    st.sampled_from([None, 1, 3]),
    st.sampled_from([5e-324, 1e-9, 0.5, 1.0]),
    st.sampled_from([0.0, 5e-324, 0.5, 1.0]),
    st.sampled_from([1e-300, 1e-3, 1.0, 1e300]),
    st.sampled_from([0.01, 1.0, 1.3, 100.0]),
    st.booleans(),
)
def test_the_likeliest_byte_stays_whatever_is_left_out(
    seed: int,
    top_k: int | None,
    top_p: float,
    min_p: float,
    temperature: float,
    penalty: float,
    valid_utf8: bool,
) -> None:
    one = chooser(
        b"Once \xc3",
        temperature=temperature,
        top_k=top_k,
        top_p=top_p,
        min_p=min_p,
        repetition_penalty=penalty,
        valid_utf8=valid_utf8,
    )
    for logits in (logits_of(seed), np.zeros(260, np.float32), logits_of(seed, 30.0)):
        p = one.probabilities(logits)
        scores = logits.astype(np.float64)
        scores[[vocab.BOE, vocab.BOS, vocab.BPE]] = -np.inf
        one.restrict(scores)
        assert np.isfinite(p).all()
        assert p.sum() == pytest.approx(1.0)
        assert p[scores.argmax()] > 0
        assert (p[scores == -np.inf] == 0).all()
