"""CUTE is as published, and its matched pairs are fair: equal in length, and won by no habit."""

from __future__ import annotations

import gzip
import json
import math
import random
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

import blt
from blt import cli
from blt.errors import UserError
from blt.evals import cute, cute_pairs
from blt.evals.choices import Question, Term, credits, credits_of, evenly, guess, option_values
from blt.evals.cute import Item
from blt.evals.cute_prompts import TASKS, prompt, without_question
from blt.generate import Generation
from shapes import TINY, TINY_BLT

SENTENCE = "The old dog saw the new cat."
ITEMS = {
    "spell": Item(("hello",), "h e l l o"),
    "spell_inverse": Item(("h e l l o",), "hello"),
    "contains_char": Item(("a", "cat"), "Yes"),
    "contains_word": Item(("cow", SENTENCE), "No"),
    "orth": Item(("home", "residence", "some"), "some"),
    "sem": Item(("home", "residence", "some"), "residence"),
    "ins_char": Item(("z", "l", "hello"), "helzlzo"),
    "ins_word": Item(("big", "old", SENTENCE), "The old big dog saw the new cat."),
    "del_char": Item(("l", "hello"), "heo"),
    "del_word": Item(("cat", SENTENCE), "The old dog saw the new."),
    "sub_char": Item(("l", "x", "hello"), "hexxo"),
    "sub_word": Item(("old", "red", SENTENCE), "The red dog saw the new cat."),
    "swap_char": Item(("h", "o", "hello"), "oellh"),
    "swap_word": Item(("old", "cat", SENTENCE), "The cat dog saw the new old."),
}
OTHERS = {
    "contains_char": Item(("q", "cat"), "No"),
    "contains_word": Item(("Saw", SENTENCE), "Yes"),
}


class Scripted(blt.ByteLM):
    """Says what a function of the prompt and the continuation says."""

    def __init__(self, log_p: Any) -> None:
        super().__init__(TINY)
        self.log_p = log_p

    def log_likelihoods(self, pairs: Sequence[tuple[bytes, bytes]]) -> list[float]:
        return [self.log_p(*pair) for pair in pairs]


def asked(task: str) -> list[Question]:
    others = [OTHERS[task]] if task in OTHERS else []
    return cute_pairs.questions(task, [ITEMS[task], *others])


def test_the_prompt_is_the_published_one() -> None:
    assert set(ITEMS) == set(TASKS)
    found = prompt("spell", ("cat",)).decode().split("\n")
    indent = " " * 12
    assert found[0].startswith("Spell out the word, putting spaces between each letter")
    assert found[1] == indent
    assert found[2] == indent + '1. Spell out the word "alphabet". Answer: "a l p h a b e t"'
    assert found[-1] == indent + 'Question: Spell out the word "cat". Answer: "'
    assert without_question("spell").decode().split("\n")[:-1] == found[:-1]
    assert b'Add an "z" after every "l" in "hello".' in prompt("ins_char", ("z", "l", "hello"))


def test_asked_without_examples_a_question_stands_alone() -> None:
    for task in TASKS:
        asked = prompt(task, ITEMS[task].inputs, zero_shot=True)
        assert prompt(task, ITEMS[task].inputs).endswith(b"Question: " + asked)
        assert asked.endswith(without_question(task, zero_shot=True))
        (first, *_), (same, *_) = (
            cute_pairs.questions(task, [ITEMS[task], OTHERS.get(task, ITEMS[task])], None, zero)
            for zero in (True, False)
        )
        assert first.answer == same.answer
        for one, other in zip(first.options, same.options, strict=True):
            assert [term.continuation for term in one] == [term.continuation for term in other]
            assert all(len(a.prompt) < len(b.prompt) for a, b in zip(one, other, strict=True))


def test_what_is_written_between_the_quotes_counts() -> None:
    answers = [
        (b" c a t ", "stop"), (b"C a t", "stop"), (b"c a t", "length"), (b"c a t", "eos"),
    ]  # fmt: skip

    class Writer(blt.ByteLM):
        def generate(self, prompts: Any, **how: Any) -> Any:
            assert how == {"max_bytes": 5 + cute.ROOM, "stop": '"'}
            return [Generation(data, why, [], [], b"") for data, why in answers]  # type: ignore[arg-type]

    items = [Item(("x", "c a t"), "c a t")] * 4
    assert cute.generated(Writer(TINY), "spell", items) == [1, 0, 0, 1]
    assert cute.generated(Writer(TINY), "del_word", items) == [1, 1, 0, 1]  # in lower case


@pytest.mark.parametrize("task", [t for t in TASKS if t[:3] in ("spe", "ins", "del", "sub", "swa")])
def test_wrong_answers_are_as_long_as_the_right_one_and_never_what_was_given(task: str) -> None:
    item = ITEMS[task]
    wrong = cute_pairs.matched(task, item, random.Random(1))
    assert 1 <= len(wrong) <= 3
    assert len({*wrong, item.label, item.inputs[-1]}) == len(wrong) + 2
    assert {len(text) for text in wrong} == {len(item.label)}
    if task[:3] != "spe":  # the same letters in another place
        assert {tuple(sorted(text)) for text in wrong if task[:3] in ("ins", "swa")} <= {
            tuple(sorted(item.label))
        }
    (question,) = asked(task)
    right = question.options[question.answer][0]
    assert right == Term(prompt(task, item.inputs), f'{item.label}"'.encode())


@pytest.mark.parametrize("task", TASKS)
def test_habits_win_no_more_than_a_guess(task: str) -> None:
    found = asked(task)
    habits: list[Any] = [
        lambda prompt, text: -len(text),  # the shortest
        lambda prompt, text: -50.0 if text.startswith(b"No") else -1.0,  # always yes
        lambda prompt, text: 0.0,
    ]
    if task in ("orth", "sem"):  # always the second word, and always the same word
        habits += [
            lambda prompt, text: float(re.findall(rb"\w+", prompt)[-2] == text[:-1]),
            lambda prompt, text: float(text < b"q"),
        ]
    for habit in habits:
        worth = credits(Scripted(habit), found)
        assert worth == pytest.approx([1 / len(q.options) for q in found])
    assert guess(found) == pytest.approx(sum(worth) / len(worth))


@pytest.mark.parametrize("task", TASKS)
def test_a_model_that_knows_the_answer_is_right(task: str) -> None:
    item = ITEMS[task]

    def knows(question: bytes, text: bytes) -> float:
        if task.startswith("contains"):
            letter, where = question.decode().rsplit("Is there a ", 1)[1].split('"')[1:4:2]
            words = where.lower().strip(".").split() if task == "contains_word" else list(where)
            return float((text == b'Yes"') == (letter.lower() in words))
        return float(text == f'{item.label}"'.encode() and question != without_question(task))

    found = asked(task)
    assert credits(Scripted(knows), found) == [1.0] * len(found)
    assert credits(Scripted(lambda *pair: -knows(*pair)), found) == [0.0] * len(found)


def test_ties_are_shared_and_lengths_divide() -> None:
    question = Question.plain(b"a", [b" long choice", b" b", b" c"], 0)
    lm = Scripted(lambda _, text: -9.0 if b"long" in text else -1.0)
    assert credits(lm, [question]) == [0.0]
    assert credits_of([question], option_values(lm, [question]), per_byte=True) == [1.0]
    assert credits(Scripted(lambda *_: -1.0), [question]) == [1 / 3]
    with pytest.raises(UserError, match="no number for an answer"):
        credits(Scripted(lambda _, text: math.nan if b"long" in text else -1.0), [question])
    assert evenly(list(range(10)), 3) == [0, 3, 6]
    assert evenly([1, 2], None) == evenly([1, 2], 5) == [1, 2]


def test_a_file_of_cute_that_is_not_utf8_is_named(tmp_path: Path) -> None:
    (tmp_path / "spell.tsv").write_bytes(b"input\tlabel\ncaf\xe9\tc a f\n")
    with pytest.raises(UserError, match=r"spell\.tsv: is not UTF-8"):
        cute.read_task(tmp_path / "spell.tsv")


def test_two_files_of_a_task_are_refused(tmp_path: Path) -> None:
    for task in TASKS:
        slots = cute.WORDING[task][2].count("{}")
        rows = ["\t".join([*["a"] * slots, last]) for last in ("label", "b")]
        (tmp_path / f"{task}.tsv").write_text("\n".join(rows))
    assert cute.read_folder(tmp_path).keys() == {*TASKS}
    (tmp_path / "spell.tsv.gz").write_bytes(b"")
    with pytest.raises(UserError, match=r"spell\.tsv\.gz: a second file of 'spell'"):
        cute.read_folder(tmp_path)


def test_the_command_gives_a_row_for_each_task_and_their_mean(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    blt.BLT(TINY_BLT).save(tmp_path / "model")
    for task, item in ITEMS.items():
        lines = ["\t".join([*item.inputs, item.label])] * 3
        if task in OTHERS:
            lines.append("\t".join([*OTHERS[task].inputs, OTHERS[task].label]))
        head = "\t".join([*(f"input{n}" for n, _ in enumerate(item.inputs, 1)), "label"])
        with gzip.open(tmp_path / f"{task}.tsv.gz", "wt") as file:
            file.write("\n".join([head, *lines]) + "\n")
    for extra in ((), ("--generate",), ("--zero-shot",), ("--generate", "--zero-shot")):
        command = [
            "eval",
            "cute",
            str(tmp_path),
            "--model",
            str(tmp_path / "model"),
            "--limit",
            "2",
        ]
        assert cli.main([*command, *extra, "--json"]) == 0
        found = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
        assert [row["task"] for row in found] == [*TASKS, "mean"]
        assert [row["questions"] for row in found] == [2] * 14 + [28]
        assert found[-1]["acc"] == pytest.approx(sum(row["acc"] for row in found[:-1]) / 14)
        assert found[0]["low"] <= found[0]["acc"] <= found[0]["high"]
        assert (found[0]["guess"] == 0) == ("--generate" in extra)
