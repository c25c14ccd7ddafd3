"""Questions about letters are right, the same for the same seed, and of words that are apart."""

from __future__ import annotations

import re
from itertools import islice

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from blt.errors import UserError
from blt.evals.characters import (
    KINDS,
    OF_CUTE,
    Question,
    Words,
    heldout,
    questions,
    strings,
    words_of,
)
from blt.evals.cute_prompts import prompt as cute_prompt

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


def slow_edit(task: str, prompt: str) -> str:
    """What is right after one of CUTE's questions, found from the prompt alone."""
    *given, text = re.findall(r'"([^"]*)"', prompt.removesuffix(' Answer: "'))
    if task == "spell":
        return "".join(f" {letter}" for letter in text)[1:]
    if task == "spell_inverse":
        return text[::2]
    parts, gap = (text.split(" "), " ") if task.endswith("_word") else (list(text), "")
    if task.startswith("contains"):
        return "Yes" if given[0] in parts else "No"
    if task.startswith("swap"):
        assert [parts.count(one) for one in given] == [1, 1]
        other = {given[0]: given[1], given[1]: given[0]}
        return gap.join(other.get(part, part) for part in parts)
    old, new = (given[1], given[0]) if task.startswith("ins") else (given[0], given[-1])
    assert old in parts
    becomes = {"ins": [old, new], "del": [], "sub": [new]}[task[:3]]
    found = [become for part in parts for become in (becomes if part == old else [part])]
    return gap.join(found)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10**6))
def test_every_answer_to_a_question_of_cute_is_right(seed: int) -> None:
    asked = list(islice(questions(WORDS.train, list(OF_CUTE), seed), 2 * len(OF_CUTE)))
    assert asked != list(islice(questions(WORDS.train, list(OF_CUTE), seed + 1), len(asked)))
    for question in asked:
        task, prompt = OF_CUTE[question.kind], question.prompt.decode()
        inputs = tuple(re.findall(r'"([^"]*)"', prompt))
        assert question.prompt == cute_prompt(task, inputs, zero_shot=True)
        assert question.answer == f'{slow_edit(task, prompt)}"\n'.encode()
        assert not task.startswith("sub") or question.answer.decode() not in f"{prompt}\n"


def test_half_of_the_answers_are_yes_and_words_without_two_letters_are_not_swapped() -> None:
    for kind in ("CUTE contains_char", "CUTE contains_word"):
        answers = [q.answer for q in islice(questions(WORDS.train, [kind], 0), 1000)]
        assert 420 < answers.count(b'Yes"\n') < 580
    asked = islice(questions(["noon", "keek", "abba", "read"], ["CUTE swap_char"], 0), 20)
    assert all(b'in "read"' in question.prompt for question in asked)


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
