"""`blt eval answers`: an answer is right to the byte, and errors are counted by character."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import blt
from blt import cli
from blt.errors import UserError
from blt.evals.answers import ROOM, read_questions, rows
from blt.evals.rows import Options
from blt.generate import Generation
from shapes import TINY, TINY_BLT

WRITTEN = {"3:": " drei", "4:": " vie", "five:": " 5", "six:": " 6 "}
QUESTIONS = [
    {"kind": "words", "prompt": "3:", "completion": " drei"},
    {"kind": "words", "prompt": "4:", "completion": " vier"},
    {"kind": "digits", "prompt": "five:", "completion": " 5"},
    {"kind": "digits", "prompt": "six:", "completion": " 6"},
]


class Clerk(blt.ByteLM):
    """Writes what stands in its book, and never counts on any answer."""

    def log_likelihoods(self, pairs: Any) -> list[float]:
        return [-float(len(answer)) for _, answer in pairs]

    def generate(self, prompts: Any, **how: Any) -> Any:
        assert how["stop"] == ()  # nothing but the document's end ends an answer
        self.room = how["max_bytes"]
        texts = [WRITTEN[prompt.decode()] for prompt in prompts]
        return [Generation(text.encode(), "eos", [], [], b"") for text in texts]


def written(path: Path, questions: list[dict[str, Any]]) -> str:
    path.write_text("".join(json.dumps(question) + "\n" for question in questions))
    return str(path)


def test_an_answer_is_right_to_the_byte_and_each_kind_counts_the_same(tmp_path: Path) -> None:
    path = written(tmp_path / "asked.jsonl", QUESTIONS)
    lm = Clerk(TINY)
    found = {measured.row["kind"]: measured.row for measured in rows(lm, [path], Options())}
    assert list(found) == ["words", "digits", "mean"]
    assert found["words"]["exact"] == 0.5
    assert found["words"]["character_errors"] == pytest.approx(1 / 10)  # an r is missing
    assert found["digits"]["character_errors"] == pytest.approx(1 / 4)  # a space too many
    assert found["mean"]["exact"] == 0.5
    assert found["mean"]["questions"] == 4
    assert lm.room == len(" 5") + ROOM
    limited = list(rows(lm, [path], Options(limit=1)))
    assert limited[-1].row["questions"] == 2


def test_questions_of_no_kind_are_those_of_their_file(tmp_path: Path) -> None:
    plain = [{key: row[key] for key in ("prompt", "completion")} for row in QUESTIONS]
    one, two = written(tmp_path / "one.jsonl", plain[:2]), written(tmp_path / "two.jsonl", plain)
    assert {name: len(of) for name, of in read_questions([one, two]).items()} == {
        "one.jsonl": 2,
        "two.jsonl": 4,
    }


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"prompt": "a"}, r":4: has no completion"),
        ({"prompt": "a", "completion": ""}, r":4: 'completion' must be a string, and not empty"),
        ({"prompt": 7, "completion": "a"}, r":4: 'prompt' must be a string"),
        ({"prompt": "a", "completion": "b", "kind": 1}, r":4: 'kind' must be a string"),
    ],
)
def test_rows_that_ask_nothing_are_named(tmp_path: Path, row: Any, message: str) -> None:
    path = written(tmp_path / "asked.jsonl", [*QUESTIONS[:2], row])
    text = Path(path).read_text()
    Path(path).write_text("\n" + text)  # an empty line is no question, and counts as a line
    with pytest.raises(UserError, match=r"asked\.jsonl" + r".*" + message):
        read_questions([path])


def test_the_command_compares_models(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = written(tmp_path / "asked.jsonl", QUESTIONS)
    for name in ("one", "two"):
        blt.BLT(TINY_BLT).save(tmp_path / name)
    use = ["--model", str(tmp_path / "one"), str(tmp_path / "two"), "--json"]
    assert cli.main(["eval", "answers", path, *use]) == 0
    found = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [row["model"] for row in found] == ["one"] * 3 + ["two"] * 3
    assert all(row["exact"] == 0 for row in found)
    assert "difference_low" in found[-1]
