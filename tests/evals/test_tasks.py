"""`blt eval` scores what it says, with every kind of model."""

from __future__ import annotations

import gzip
import json
import math
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import blt
from blt import cli
from blt.errors import UserError
from blt.evals import cute
from blt.evals.choices import Question, accuracy, hellaswag
from blt.lm import LanguageModel
from blt.model.config import TokenTransformerConfig
from blt.token_lm import TokenLM
from blt.tokens import ByteTokenizer
from shapes import TINY, TINY_BLT, random_blt
from texts import MULTILINGUAL


@pytest.fixture(scope="module")
def models() -> list[LanguageModel]:
    torch.manual_seed(0)
    shape = TokenTransformerConfig(vocab_size=300, dim=16, heads=2, layers=1, ff_dim=32)
    tokens = TokenLM(shape, ByteTokenizer.train([MULTILINGUAL], 300)).eval()
    return [random_blt(), blt.ByteLM(TINY).eval(), tokens]


@given(st.lists(st.tuples(st.binary(max_size=40), st.binary(max_size=20)), max_size=5))
def test_log_likelihoods_of_parts_add_up_to_that_of_the_whole(
    models: list[LanguageModel], pairs: list[tuple[bytes, bytes]]
) -> None:
    for lm in models[:2]:  # tokens may join across the border
        found = lm.log_likelihoods(pairs)
        for (prompt, rest), value in zip(pairs, found, strict=True):
            whole = lm.bits_per_byte(prompt + rest) * len(prompt + rest)
            part = lm.bits_per_byte(prompt) * len(prompt)
            assert value == pytest.approx(-(whole - part) * math.log(2), abs=1e-2)
    for lm in models:
        found = lm.log_likelihoods([(b"", text) for _, text in pairs])
        for (_, text), value in zip(pairs, found, strict=True):
            bits = lm.bits_per_byte(text) * len(text)
            assert value == pytest.approx(-bits * math.log(2), abs=1e-2)


def test_the_likeliest_choice_wins_whole_or_per_byte() -> None:
    class Fixed(blt.ByteLM):
        def log_likelihoods(self, pairs: object) -> list[float]:
            return [-9.0, -4.0, -1.0, -2.0]

    asked = [Question(b"a", (b"long choice", b"b"), 0), Question(b"a", (b"c", b"d"), 1)]
    found = accuracy(Fixed(TINY), asked)
    assert (found.likeliest, found.per_byte) == (0.0, 0.5)


def test_noise_goes_where_it_is_sent() -> None:
    question = Question(b"a prompt", (b" one", b" two"), 1)
    assert question.disturbed("UpperCase", "prompt", 0) == Question(
        b"A PROMPT", (b" one", b" two"), 1
    )
    assert question.disturbed("UpperCase", "completion", 0).choices == (b" ONE", b" TWO")
    assert question.disturbed("AntSpeak", "both", 0) == Question(
        b"A   P R O M P T", (b" O N E", b" T W O"), 1
    )


ROWS = {
    "spell": "input1\tlabel\n" + "".join(f"w{n}\tw {n}\n" for n in range(9)),
    "contains_char": "input1\tinput2\tlabel\n" + "a\tcat\tYes\nb\tcat\tNo\n" * 5,
    "orth": "input1\tinput2\tinput3\tlabel\n" + "is\tgis\tare\tgis\n" * 9,
}


def cute_folder(folder: Path) -> Path:
    folder.mkdir()
    for task in cute.TASKS:
        kind = "contains_char" if task.startswith("contains") else "orth"
        kind = "spell" if task.startswith("spell") else kind
        with gzip.open(folder / f"{task}.tsv.gz", "wt") as file:
            file.write(ROWS[kind])
    return folder


def test_questions_of_cute_have_one_right_answer_among_different_ones(tmp_path: Path) -> None:
    folder = cute_folder(tmp_path / "cute")
    for task in ("spell", "contains_char", "orth"):
        items = cute.read_task(folder / f"{task}.tsv.gz")
        asked = cute.questions(task, items)
        assert len(asked) == len(items) - cute.SHOTS
        for question, item in zip(asked, items[cute.SHOTS :], strict=True):
            assert question.choices[question.answer] == f" {item.label}\n".encode()
            assert len(set(question.choices)) == len(question.choices) >= 2
            assert question.prompt.count(b"Answer:") == cute.SHOTS + 1
            assert question.prompt.endswith(b"Answer:")


@pytest.fixture
def model(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    blt.BLT(TINY_BLT).save(tmp_path / "model")
    return tmp_path / "model"


def rows(capsys: pytest.CaptureFixture[str], *args: object) -> list[dict[str, object]]:
    assert cli.main(["eval", *map(str, args), "--json"]) == 0
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def test_every_task_of_the_command(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, model: Path
) -> None:
    text = tmp_path / "text.txt"
    text.write_bytes(MULTILINGUAL[:600] + b"\xff")
    use = ("--model", model)
    (row,) = rows(capsys, "bpb", text, *use)
    assert row["bytes"] == 601
    assert row["bits_per_byte"] == pytest.approx(
        blt.load(model).bits_per_byte(text.read_bytes()), rel=1e-4
    )
    noises = rows(capsys, "noise", text, *use)
    assert len(noises) == 6
    assert noises[0]["more"] == 0
    swag = tmp_path / "swag.jsonl"
    questions = [{"ctx": "He", "endings": ["runs.", "ran."], "label": n % 2} for n in range(3)]
    swag.write_text("\n".join(map(json.dumps, questions)))
    assert len(rows(capsys, "hellaswag", swag, *use)) == 16
    found = rows(capsys, "cute", cute_folder(tmp_path / "cute"), *use, "--limit", 2, "--generate")
    assert [row["task"] for row in found] == [*cute.TASKS, "mean"]
    assert cli.main(["eval", "bpb", str(text), *map(str, use)]) == 0
    assert "bits per byte" in capsys.readouterr().out


def test_mistakes_are_named(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, model: Path
) -> None:
    swag = tmp_path / "swag.jsonl"
    swag.write_text('{"ctx": "He"}\n')
    with pytest.raises(UserError, match=r"swag\.jsonl:1: no question"):
        hellaswag(swag)
    table = tmp_path / "spell.tsv"
    table.write_text("input1\tlabel\none\n")
    with pytest.raises(UserError, match=r"spell\.tsv:2: 1 columns"):
        cute.read_task(table)
    for args, message in (
        (["cuddle", "x"], "choose one of"),
        (["cute", str(tmp_path / "model")], "no spell.tsv"),
        (["hellaswag", "a", "b"], "nothing else"),
        (["bpb", str(tmp_path / "none")], "no such file"),
    ):
        assert cli.main(["eval", *args, "--model", str(model)]) == 2
        assert message in capsys.readouterr().err
