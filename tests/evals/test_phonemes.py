"""Grapheme to phoneme: examples from training words, answers from test words, errors by sound."""

from __future__ import annotations

import gzip
import json
import math
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import blt
from blt import cli
from blt.errors import UserError
from blt.evals.answers import ROOM, distance
from blt.evals.phonemes import SHOTS, read_folder, rows
from blt.evals.rows import Options
from blt.generate import Generation
from shapes import TINY, TINY_BLT


class Speller(blt.ByteLM):
    """Says every word as its letters, and is as sure of every byte."""

    def log_likelihoods(self, pairs: Any) -> list[float]:
        self.pairs = pairs
        return [-math.log(2) * len(answer) for _, answer in pairs]

    def generate(self, prompts: Any, **how: Any) -> Any:
        assert how == {"max_bytes": len("t ɛ s t") + 1 + ROOM, "stop": "\n"}
        words = [prompt.rsplit(b"\n", 1)[1].removesuffix(b":").decode() for prompt in prompts]
        return [Generation(f" {' '.join(w)}".encode(), "stop", [], [], b"") for w in words]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for language, lines in (("xyz", "test\tt ɛ s t\nno\tn o\n"), ("abc", "ab\ta b\nba\tt a\n")):
        (tmp_path / "low").mkdir(exist_ok=True)
        train = "".join(f"w{n}\tw {n}\n" for n in range(20))
        (tmp_path / "low" / f"{language}_train.tsv").write_text(train)
        packed = gzip.compress(lines.encode())
        (tmp_path / "low" / f"{language}_test.tsv.gz").write_bytes(packed)
    (tmp_path / "low" / "xyz_train.tsv").rename(tmp_path / "low" / "xyz_train.tsv.gz")
    text = (tmp_path / "low" / "xyz_train.tsv.gz").read_bytes()
    (tmp_path / "low" / "xyz_train.tsv.gz").write_bytes(gzip.compress(text))
    (tmp_path / "low" / "abc_train.tsv.gz").write_bytes(gzip.compress(text))
    (tmp_path / "low" / "abc_train.tsv").unlink()
    return tmp_path


def test_bits_are_per_byte_of_the_answer_and_errors_per_sound(folder: Path) -> None:
    lm = Speller(TINY)
    found = {m.row["language"]: m.row for m in rows(lm, folder, Options())}
    assert list(found) == ["abc", "xyz", "mean"]
    assert {row["bits_per_byte"] for row in found.values()} == {1.0}
    prompt, answer = lm.pairs[0]  # of the last language
    assert prompt.decode().count("\n") == SHOTS
    assert prompt.startswith(b"w0: w 0\n")
    assert prompt.endswith(b"\ntest:")
    assert answer == " t ɛ s t\n".encode()
    limited = {m.row["language"]: m.row for m in rows(lm, folder, Options(limit=1))}
    assert limited["mean"]["words"] == 2


def test_what_is_written_is_compared_sound_by_sound(folder: Path) -> None:
    class Right(Speller):
        def generate(self, prompts: Any, **how: Any) -> Any:
            how["max_bytes"] = len("t ɛ s t") + 1 + ROOM
            return super().generate(prompts, **how)

    found = {m.row["language"]: m.row for m in rows(Right(TINY), folder, Options(generate=True))}
    assert found["xyz"]["exact"] == 0.5
    assert found["xyz"]["phoneme_errors"] == pytest.approx(1 / 6)  # e for ɛ
    assert found["abc"]["phoneme_errors"] == pytest.approx(1 / 4)
    assert found["mean"]["phoneme_errors"] == pytest.approx((1 / 6 + 1 / 4) / 2)
    assert found["xyz"]["exact_low"] <= 0.5 <= found["xyz"]["exact_high"]


@given(st.text("abc", max_size=6), st.text("abc", max_size=6), st.text("abc", max_size=6))
def test_distance_is_a_metric(one: str, two: str, three: str) -> None:
    a, b, c = list(one), list(two), list(three)
    assert distance(a, b) == distance(b, a) >= abs(len(a) - len(b))
    assert (distance(a, b) == 0) == (a == b)
    assert distance(a, c) <= distance(a, b) + distance(b, c)
    assert distance(list("kitten"), list("sitting")) == 3


def test_files_that_do_not_fit_are_named(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=r"no LANGUAGE_test\.tsv in it"):
        read_folder(tmp_path / "empty")
    (folder / "low" / "abc_test.tsv.gz").write_bytes(gzip.compress(b"ab\ta b\nba\n"))
    with pytest.raises(UserError, match=r"abc_test\.tsv\.gz:2: no word, tab, phonemes"):
        read_folder(folder)
    (folder / "low" / "abc_train.tsv").write_text("c\tc\n")
    with pytest.raises(UserError, match=r"abc_train\.tsv\.gz: a second file of 'abc'"):
        read_folder(folder)
    (folder / "low" / "abc_train.tsv").unlink()
    (folder / "low" / "abc_train.tsv.gz").unlink()
    with pytest.raises(UserError, match=r"no abc_train\.tsv beside it"):
        read_folder(folder)


def test_two_files_of_a_language_are_refused_rather_than_one_dropped(folder: Path) -> None:
    (folder / "high").mkdir()
    for part in ("train", "test"):
        (folder / "high" / f"xyz_{part}.tsv").write_text("a\tb\n")
    with pytest.raises(UserError, match=r"a second file of 'xyz'; leave one"):
        read_folder(folder)


def test_the_command_takes_a_real_model(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    blt.BLT(TINY_BLT).save(folder / "model")
    args = ["eval", "g2p", str(folder), "--model", str(folder / "model"), "--json"]
    assert cli.main([*args, "--limit", "1", "--generate"]) == 0
    found = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [row["language"] for row in found] == ["abc", "xyz", "mean"]
    assert found[-1]["phoneme_errors"] > 0
    assert found[0]["exact_low"] is None  # of one word alone nothing is known
