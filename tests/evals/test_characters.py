"""Questions about letters are right, the same for the same seed, and of words that are apart."""

from __future__ import annotations

import re
from itertools import islice

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from blt.errors import UserError
from blt.evals.characters import KINDS, Question, Words, heldout, questions, strings, words_of

WORDS = Words.divided(strings(1000))


def slow_answer(question: Question) -> str:
    """What is right, found from the prompt alone, letter by letter."""
    prompt = question.prompt.decode()
    found = re.fullmatch(
        r"(Which has the most|Which contains|Which starts with|Which ends with|Which is the longest"
        r"|Which is the shortest) ?(\w*): (\w+), (\w+), (\w+), (\w+)\?",
        prompt,
    )
    if found:
        what, part, *words = found.groups()
        measure = {
            "Which has the most": lambda w: sum(letter == part for letter in w),
            "Which contains": lambda w: len(w.split(part)) > 1,
            "Which starts with": lambda w: w[0] == part[0] and w[1] == part[1],
            "Which ends with": lambda w: w[-1] == part[-1] and w[-2] == part[-2],
            "Which is the longest": lambda w: sum(1 for _ in w),
            "Which is the shortest": lambda w: 9 - sum(1 for _ in w),
        }[what]
        values = [measure(word) for word in words]
        (best,) = [w for w, v in zip(words, values, strict=True) if v == max(values)]
        if question.kind == "most":
            assert sorted(values)[-2] > 0  # somebody else has the letter too
        return best
    if found := re.fullmatch(r"In (\w+), how many (\w)\?", prompt):
        word, letter = found.groups()
        return str(len([x for x in word if x == letter]))
    if found := re.fullmatch(r"Which is the (first|third|last) letter of (\w+)\?", prompt):
        place, word = found.groups()
        return list(word)[{"first": 0, "third": 2, "last": -1}[place]]
    if found := re.fullmatch(r"Spell (\w+):", prompt):
        return re.sub(r"(.)(?=.)", r"\1 ", found[1])
    found = re.fullmatch(r"Backwards, spell (\w+):", prompt)
    assert found, prompt
    spelled = ""
    for letter in found[1]:
        spelled = f"{letter} {spelled}"
    return spelled.rstrip()


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10**6))
def test_every_answer_is_right_and_every_seed_gives_its_own_questions(seed: int) -> None:
    asked = list(islice(questions(WORDS.train, KINDS, seed), 2 * len(KINDS)))
    assert asked == list(islice(questions(WORDS.train, KINDS, seed), 2 * len(KINDS)))
    assert asked != list(islice(questions(WORDS.train, KINDS, seed + 1), 2 * len(KINDS)))
    assert [question.kind for question in asked] == [*KINDS, *KINDS]
    for question in asked:
        assert question.answer == f" {slow_answer(question)}\n".encode()


def test_words_and_questions_to_train_on_are_not_those_to_be_looked_at_by() -> None:
    parts = WORDS.train, WORDS.search, WORDS.test
    assert len(set().union(*parts)) == sum(map(len, parts)) == 1000
    learned = {q.prompt for q in islice(questions(WORDS.train, KINDS, 0), 2000)}
    for part in parts[1:]:
        looked = heldout(part, KINDS, 10, 0)
        assert len({q.prompt for q in looked}) == 10 * len(KINDS)
        assert not learned & {q.prompt for q in looked}


def test_each_count_of_a_letter_is_asked_for_about_as_often() -> None:
    answers = [q.answer for q in islice(questions(WORDS.train, ["count"], 0), 1000)]
    assert {a: 200 < answers.count(a) < 300 for a in set(answers)} == dict.fromkeys(
        (b" 0\n", b" 1\n", b" 2\n", b" 3\n"), True
    )


def test_words_of_texts_are_the_most_frequent_of_fitting_length() -> None:
    text = "The Straße, the STRASSE: a garden, the garden's Garden 1234 ü_x verylongwordindeed"
    assert words_of([text.encode(), b"street \xff"], 3) == ["garden", "strasse", "straße"]


@pytest.mark.parametrize(
    ("ask", "message"),
    [
        (lambda: Words.divided(["word"] * 500), "1 different words"),
        (lambda: next(questions(WORDS.train, ["spelling"], 0)), "no kind of question 'spelling'"),
        (lambda: next(questions(["abcd"] * 9, ["longest"], 0)), "too much alike"),
        (lambda: heldout(WORDS.test, ["spell"], 101, 0), "do not give 101 questions 'spell'"),
    ],
)
def test_words_that_do_not_do_are_refused(ask: object, message: str) -> None:
    with pytest.raises(UserError, match=message):
        ask()  # type: ignore[operator]
