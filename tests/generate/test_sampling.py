"""The next byte is drawn from the distribution that was asked for."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st

from blt import vocab
from blt.errors import UserError
from blt.generate import spelling, utf8
from blt.generate.sampling import Chooser, Sampling, distributions, draw, restrict, verify

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


prompts = st.binary(max_size=12) | st.builds(
    lambda data, text, cut: data + text.encode("utf-8", "ignore")[: -cut or None],
    st.binary(max_size=4),
    st.text(st.characters(min_codepoint=0x80), min_size=1, max_size=2),
    st.integers(0, 3),
)


@given(prompts, seeds, st.integers(0, 9))
@example("漢".encode()[:1], 0, 1)  # what has been begun does not fit
@example("😀".encode()[:2], 0, 1)
@example("😀".encode()[:1], 0, 3)  # it fits exactly
def test_only_valid_utf8_is_written_and_it_ends_whole(prompt: bytes, seed: int, most: int) -> None:
    generator = random.Random(seed)
    begun, now = vocab.unfinished(prompt), chooser(prompt, valid_utf8=True, max_bytes=most)
    rest = utf8.state_of(prompt)
    written = bytearray()
    while now.remaining > 0:
        token = draw(now.probabilities(logits_of(generator.randrange(10**6))), generator)
        if token == vocab.EOS:
            break
        written.append(token - vocab.OFFSET)
        now = now.after(token)
    # A character that the prompt has begun is finished where it fits, and else left as it is.
    bytes(begun + written if 0 < len(rest) <= most else written).decode()


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


def test_every_state_allows_exactly_the_bytes_that_python_decodes() -> None:
    """All states, all bytes, all room: no surrogate, no overlong form, nothing above U+10FFFF."""
    reached, todo = {utf8.WHOLE: b""}, [utf8.WHOLE]
    while todo:
        rest = todo.pop()
        for byte in range(256):
            after = utf8.after(rest, byte)
            if after is not None and after not in reached:
                reached[after] = reached[rest] + bytes([byte])
                todo.append(after)
    assert set(reached) == set(utf8.states())
    alphabet = bytes(range(0x80, 0xC0))
    ends = [b"", *(bytes([a]) for a in alphabet), *(bytes([a, 0x80]) for a in alphabet)]
    ends += [bytes([a, 0x80, 0x80]) for a in alphabet]
    for rest, data in reached.items():
        for byte in range(256):
            begun = data + bytes([byte])
            needed = [len(end) for end in ends if _is_utf8(begun + end)]
            for room in range(5):
                allowed = not utf8.forbidden(rest, room)[byte + vocab.OFFSET]
                least = max(room, len(rest), 1)  # what was begun goes on
                assert allowed == (bool(needed) and 1 + min(needed) <= least), (begun, room)


@pytest.mark.slow
def test_the_automaton_takes_all_of_unicode_and_nothing_else() -> None:
    """Whole characters: all 1,112,064, as Python encodes them."""

    def walk(rest: utf8.Rest, data: bytes) -> int:
        if data and not rest:
            assert _is_utf8(data), data
            return 1
        bytes_of = ((byte, utf8.after(rest, byte)) for byte in range(256))
        return sum(walk(after, data + bytes([b])) for b, after in bytes_of if after is not None)

    assert walk(utf8.WHOLE, b"") == 0x110000 - 0x800


@given(st.binary(max_size=9))
def test_an_unfinished_character_is_what_pythons_decoder_waits_for(data: bytes) -> None:
    begun = vocab.unfinished(data)
    assert data.endswith(begun)
    assert bool(begun) == bool(utf8.state_of(data))
    ends = (b"\x80" * 3, b"\x80" * 2, b"\x80", b"\xa0\x80", b"\x90\x80\x80")
    assert not begun or any(_is_utf8(begun + end) for end in ends)


def test_a_mask_changes_nothing_where_bytes_may_be_anything() -> None:
    state = spelling.first(b"\xf0", 9, valid_utf8=False, ignore_eos=False)
    assert set(spelling.tables().following[state]) == {state}
    assert spelling.tables().banned[state].sum(1).tolist() == [len(spelling.NEVER)] * 5


def test_valid_text_cannot_end_within_a_character_at_a_stop_string() -> None:
    with pytest.raises(UserError, match=r"stop: \[b'\\xa9'\] begins within a character"):
        Sampling(stop=(b"x", b"\xa9"), valid_utf8=True)
    Sampling(stop=(b"\xa9",))
    Sampling(stop=("é", b"a\xa9"), valid_utf8=True)


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
        restrict([one], scores[None])
        assert np.isfinite(p).all()
        assert p.sum() == pytest.approx(1.0)
        assert p[scores.argmax()] > 0
        assert (p[scores == -np.inf] == 0).all()
