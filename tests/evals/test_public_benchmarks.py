"""BLiMP, LAMBADA and HellaSwag are read and scored as their authors mean it."""

from __future__ import annotations

import gzip
import json
import math
import zipfile
from pathlib import Path
from typing import Any

import pytest

import blt
from blt import cli
from blt.errors import UserError
from blt.evals.benchmarks import blimp, hellaswag, lambada, placed_lines
from blt.evals.rows import Options
from blt.lm import LanguageModel
from blt.model.language import Score
from shapes import TINY, TINY_BLT


class Scripted(blt.ByteLM):
    """Says what a function of the prompt and the continuation says."""

    def __init__(self, log_p: Any) -> None:
        super().__init__(TINY)
        self.log_p = log_p

    def score(self, pairs: Any) -> list[Score]:
        return [Score(self.log_p(*pair), self.log_p(*pair) > -1) for pair in pairs]


def pair(uid: str, field: str, good: str, bad: str) -> dict[str, str]:
    return {"UID": uid, "field": field, "sentence_good": good, "sentence_bad": bad}


@pytest.fixture
def pairs(tmp_path: Path) -> Path:
    path = tmp_path / "blimp.zip"
    lines = {
        "one": [pair("one", "syntax", "It is so.", "It are so.")] * 3,
        "two": [pair("two", "syntax", "It was so.", "It were so.")],
        "three": [pair("three", "semantics", "It were so.", "It was so.")] * 2,
    }
    with zipfile.ZipFile(path, "w") as archive:
        for name, rows in lines.items():
            archive.writestr(f"data/{name}.jsonl", "\n".join(map(json.dumps, rows)) + "\n")
        archive.writestr("data/readme.txt", "no JSON")
    return path


def swag(path: Path, count: int = 8) -> Path:
    ends = ["one", "two words", "three", "four"]
    lines = [{"ctx": "A man", "endings": ends, "label": n % 4} for n in range(count)]
    path.write_bytes(gzip.compress("\n".join(map(json.dumps, lines)).encode()))
    return path


def test_the_good_sentence_must_be_likelier_by_field_and_in_all(pairs: Path) -> None:
    lm = Scripted(lambda prompt, text: -1.0 if b" was " in text or b" is " in text else -2.0)
    rows = {m.row["field"]: m.row for m in blimp(lm, pairs, Options())}
    assert list(rows) == ["semantics", "syntax", "all"]
    assert (rows["syntax"]["acc"], rows["syntax"]["questions"]) == (1.0, 4)
    assert rows["semantics"]["acc"] == 0.0
    assert rows["all"]["acc"] == pytest.approx(4 / 6)
    assert (rows["all"]["paradigms"], rows["all"]["guess"]) == (3, 0.5)
    few = {m.row["field"]: m.row for m in blimp(lm, pairs, Options(limit=3))}
    assert few["all"]["questions"] == 3
    assert few["all"]["paradigms"] == 2  # at equal distances, not the first three


def test_the_last_word_is_what_follows_the_last_space(tmp_path: Path) -> None:
    path = tmp_path / "lambada.jsonl"
    texts = ["One two three", "I know Shane"]
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    asked = []

    def log_p(*pair: bytes) -> float:
        asked.append(pair)
        return -0.5 if pair[1] == b" Shane" else -3.0

    rows = {m.row["last word"]: m.row for m in lambada(Scripted(log_p), path, Options())}
    assert set(asked) == {(b"One two", b" three"), (b"I know", b" Shane")}
    assert rows["accuracy, greedy"]["value"] == 0.5
    assert rows["bits of the word"]["value"] == pytest.approx(3.5 / 2 / math.log(2))
    assert rows["bits per byte of it"]["value"] == pytest.approx(3.5 / 12 / math.log(2))


def test_endings_are_compared_per_byte_and_noise_is_in_the_context(tmp_path: Path) -> None:
    path, contexts = swag(tmp_path / "swag.jsonl.gz"), set()

    def log_p(prompt: bytes, text: bytes) -> float:
        contexts.add(prompt)
        clean = prompt == b"A man"
        return -float(len(text) - 1) * (0.5 if text == b" two words" and clean else 1.0)

    rows = {m.row["noise"]: m.row for m in hellaswag(Scripted(log_p), path, Options(noise=True))}
    assert list(rows)[::6] == ["none", "mean of 5"]
    assert {b"A   M A N", b"A MAN"} <= contexts
    assert rows["none"]["acc"] == 0.25  # the longer ending, two of eight times
    assert rows["none"]["acc_whole"] == pytest.approx(0.25)  # the shortest one
    assert rows["UpperCase"]["acc"] == 0.25  # all alike: shared
    assert rows["none"]["robustness"] is None  # nothing above chance to lose

    def knows(prompt: bytes, text: bytes) -> float:
        good = prompt == b"A man" and text == b" one"
        return 0.0 if good else -float(len(text) - 1)

    single = tmp_path / "single.jsonl"
    ends = ["one", "two", "six", "ten"]
    line = json.dumps({"ctx": "A man", "endings": ends, "label": 0})
    single.write_text(f"{line}\n" * 4)
    rows = {m.row["noise"]: m.row for m in hellaswag(Scripted(knows), single, Options(noise=True))}
    assert (rows["none"]["acc"], rows["none"]["above_chance"]) == (1.0, 1.0)
    assert rows["none"]["robustness"] == 100
    assert (rows["AntSpeak"]["acc"], rows["AntSpeak"]["robustness"]) == (0.25, 0)
    drop = rows["Drop"]
    assert drop["robustness"] == pytest.approx(100 * (drop["acc"] - 0.25) / 0.75)


def test_lines_that_are_no_questions_are_named(tmp_path: Path) -> None:
    path = tmp_path / "file.jsonl"
    for text, message in (
        ('{"text": "a"}\n{"text": ', r"file\.jsonl:2: is no JSON"),
        ('{"text": "a"}\n{"other": 1}', r"file\.jsonl:2: has no text"),
        ("[1]", r"file\.jsonl:1: has no text"),
        ("", "nothing in it"),
    ):
        path.write_text(text)
        with pytest.raises(UserError, match=message):
            placed_lines(path, ("text",))
    (tmp_path / "bad.zip").write_bytes(b"PK no")
    with pytest.raises(UserError, match="is no zip"):
        placed_lines(tmp_path / "bad.zip", ("text",))
    with zipfile.ZipFile(tmp_path / "locked.zip", "w") as archive:
        archive.writestr("a.jsonl", '{"text": "a"}')
    packed = bytearray((tmp_path / "locked.zip").read_bytes())
    for mark, flags in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        packed[packed.index(mark) + flags] |= 1  # encrypted
    (tmp_path / "locked.zip").write_bytes(packed)
    with pytest.raises(UserError, match=r"locked\.zip: is no zip.*encrypted"):
        placed_lines(tmp_path / "locked.zip", ("text",))
    path.write_text("[" * 100_000)
    with pytest.raises(UserError, match=r"file\.jsonl:1: is no JSON"):
        placed_lines(path, ("text",))


@pytest.mark.parametrize(
    ("task", "change", "message"),
    [
        (blimp, {"sentence_good": 3}, "'sentence_good' must be a string, and not empty"),
        (blimp, {"UID": None}, "'UID' must be a string"),
        (lambada, {"text": None}, "'text' must be a string"),
        (lambada, {"text": "half a pair \ud83d"}, "'text' has half a surrogate pair"),
        (hellaswag, {"ctx": ["A man"]}, "'ctx' must be a string"),
        (hellaswag, {"endings": []}, "'endings' must be a list of 4 strings"),
        (hellaswag, {"endings": "four"}, "'endings' must be a list of 4 strings"),
        (hellaswag, {"endings": ["a", "b", "c", 4]}, "each of 'endings' must be a string"),
        (hellaswag, {"label": ""}, "'label' must be 0 to 3, got ''; name a file with answers"),
        (hellaswag, {"label": 4}, "'label' must be 0 to 3, got 4"),
        (hellaswag, {"label": True}, "'label' must be 0 to 3, got True"),
    ],
)
def test_what_cannot_be_asked_is_named_with_its_line_and_key(
    tmp_path: Path, task: Any, change: dict[str, Any], message: str
) -> None:
    plain = {"text": "One two", "ctx": "A man", "endings": [*"abcd"], "label": "3"}
    lines = [row | pair("one", "syntax", "It is.", "It are.") for row in (plain, plain)]
    path = tmp_path / "asked.jsonl"
    path.write_text("\n".join(map(json.dumps, [lines[0], {**lines[1], **change}])))
    with pytest.raises(UserError, match=rf"asked\.jsonl:2: {message}"):
        list(task(Scripted(lambda *_: -1.0), path, Options()))


def test_an_archive_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"none\.zip: cannot be read .*check the path"):
        placed_lines(tmp_path / "none.zip", ("text",))


def test_the_commands_take_real_models(
    pairs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model: LanguageModel = blt.BLT(TINY_BLT)
    model.save(tmp_path / "model")
    (tmp_path / "lambada.jsonl").write_text('{"text": "One two"}\n')
    for command, count in (
        (["blimp", pairs], 3),
        (["lambada", tmp_path / "lambada.jsonl"], 3),
        (["hellaswag", swag(tmp_path / "swag.jsonl.gz")], 1),
        (["hellaswag", swag(tmp_path / "swag.jsonl.gz"), "--noise", "--limit", 2], 7),
    ):
        args = ["eval", *map(str, command), "--model", str(tmp_path / "model"), "--json"]
        assert cli.main(args) == 0
        assert len(capsys.readouterr().out.splitlines()) == count
    assert cli.main(["eval", "blimp", str(pairs), "--noise"]) == 2
    assert "--noise: means nothing for blimp" in capsys.readouterr().err
