"""Bytes chosen on the device are those that are chosen on the host, number by number."""

from __future__ import annotations

import random

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from blt import vocab
from blt.generate.captured.choice import Choosing, Needs, Spelling, drawn, verdict
from blt.generate.numbers import Numbers, number_at
from blt.generate.sampling import Chooser, Sampling, distributions, draw, verify

SPELLING = Spelling(torch.device("cpu"))


def random_sampling(chance: random.Random) -> Sampling:
    return Sampling(
        max_bytes=chance.choice([1, 2, 3, 40]),
        temperature=chance.choice([0.0, 0.7, 1.0]),
        top_k=chance.choice([None, 1, 9]),
        top_p=chance.choice([1.0, 0.9, 0.3]),
        min_p=chance.choice([0.0, 0.1]),
        repetition_penalty=chance.choice([1.0, 1.3]),
        valid_utf8=chance.random() < 0.5,
        ignore_eos=chance.random() < 0.5,
        seed=chance.randrange(2**40),
    )


def choosing_of(choosers: list[list[Chooser]]) -> Choosing:
    """Choosers [R][n] as the device has them."""
    first = [row[0].sampling for row in choosers]
    seen = torch.zeros(len(choosers), len(choosers[0]), vocab.VOCAB_SIZE, dtype=torch.bool)
    for r, row in enumerate(choosers):
        for j, chooser in enumerate(row):
            seen[r, j, list(chooser.seen)] = True
    return Choosing(
        torch.tensor([[c.state for c in row] for row in choosers]),
        torch.tensor([[c.remaining for c in row] for row in choosers]),
        seen,
        torch.tensor([s.repetition_penalty for s in first], dtype=torch.float64),
        torch.tensor([s.temperature for s in first], dtype=torch.float64),
        torch.tensor([s.top_k or vocab.VOCAB_SIZE for s in first]),
        torch.tensor([s.top_p for s in first], dtype=torch.float64),
        torch.tensor([s.min_p for s in first], dtype=torch.float64),
    )


def logits_of(chance: random.Random, rows: int, n: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(chance.randrange(2**40))
    return 2 * torch.randn(rows, n, vocab.VOCAB_SIZE, generator=generator)


@given(st.integers(0, 2**32), st.integers(1, 12))
def test_distributions_and_choices_are_those_of_the_host(seed: int, count: int) -> None:
    chance = random.Random(seed)
    samplings = [random_sampling(chance) for _ in range(count)]
    choosers = [Chooser.begin(s, chance.randbytes(chance.randrange(9))) for s in samplings]
    needs, logits = Needs.of(samplings), logits_of(chance, count, 1)
    expected = distributions(choosers, logits[:, 0].numpy())
    choosing = choosing_of([[chooser] for chooser in choosers])
    scores = choosing.scores(logits, SPELLING, needs)
    if needs.draws:
        found = choosing.distribution(scores, needs)[:, 0].numpy()
        np.testing.assert_allclose(found, expected, atol=1e-12)
    taken = torch.tensor([chance.randrange(5) for _ in samplings])
    numbers = [Numbers(sampling.seed) for sampling in samplings]
    for one, count_taken in zip(numbers, taken.tolist(), strict=True):
        one.taken = count_taken
    keys = torch.tensor([one.key for one in numbers])
    nothing = torch.zeros(count, 0)
    verdicts = verdict(
        scores, choosing, needs, (keys, taken), nothing, nothing, torch.zeros_like(taken)
    )
    assert verdicts.token.tolist() == [draw(p, o) for p, o in zip(expected, numbers, strict=True)]
    assert verdicts.taken.tolist() == [one.taken for one in numbers]
    for r, chooser in enumerate(choosers):
        after = chooser.after(int(verdicts.token[r]))
        state = SPELLING.following[choosing.spelling[r, 0], verdicts.token[r]]
        assert int(state) == after.state


@given(st.integers(0, 2**32), st.integers(1, 8), st.integers(1, 5))
def test_drafts_are_kept_and_replaced_as_on_the_host(seed: int, count: int, most: int) -> None:
    chance = random.Random(seed)
    samplings = [random_sampling(chance) for _ in range(count)]
    drafts = [chance.randint(0, most) for _ in samplings]
    numbers = [Numbers(sampling.seed) for sampling in samplings]
    guessed = logits_of(chance, count, most)
    logits = torch.cat((guessed, logits_of(chance, count, 1)), 1)
    logits[:, :-1] += 0.3 * logits_of(chance, count, most)
    choosers = [[Chooser.begin(sampling, b"Once \xc3")] for sampling in samplings]
    guesses = torch.full((count, most), vocab.OFFSET)
    drawn_from = torch.zeros(count, most, vocab.VOCAB_SIZE, dtype=torch.float64)
    for r, row in enumerate(choosers):
        for j in range(most):
            q = row[-1].probabilities(guessed[r, j].numpy())
            if j < drafts[r]:
                guesses[r, j] = draw(q, numbers[r])
                drawn_from[r, j] = torch.from_numpy(q.copy())
            row.append(row[-1].after(int(guesses[r, j])))
    needs, choosing = Needs.of(samplings), choosing_of(choosers)
    found = verdict(
        choosing.scores(logits, SPELLING, needs),
        choosing,
        needs,
        (torch.tensor([one.key for one in numbers]), torch.zeros(count, dtype=torch.int64)),
        guesses,
        drawn_from,
        torch.tensor(drafts),
    )
    for r, (row, one) in enumerate(zip(choosers, numbers, strict=True)):
        kept, token = 0, -1
        for j in range(most + 1):
            p = row[j].probabilities(logits[r, j].numpy())
            if j == drafts[r]:
                token = draw(p, one)
                break
            token = verify(p, drawn_from[r, j].numpy(), int(guesses[r, j]), one)
            if token != int(guesses[r, j]):
                break
            kept += 1
        assert (int(found.kept[r]), int(found.token[r])) == (kept, token)
        assert int(found.taken[r]) == one.taken


@given(st.lists(st.sampled_from([0.0, 0.0, 0.1, 1.0]), min_size=1, max_size=9), st.integers(0))
def test_what_has_no_probability_is_never_drawn(p: list[float], seed: int) -> None:
    weights = torch.tensor([*p, 0.5, 0.0], dtype=torch.float64)
    for number in (0.0, 0.5, 1 - 2.0**-53, Numbers(seed).random()):
        token = drawn(weights[None], torch.tensor([number], dtype=torch.float64))
        assert weights[token] > 0


def test_a_choice_takes_the_number_that_follows_those_taken() -> None:
    key = torch.tensor([Numbers(7).key])
    numbers = Numbers(7)
    assert [numbers.random() for _ in range(3)][2] == float(number_at(key, torch.tensor([2])))
