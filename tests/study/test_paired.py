"""Runs of a study are compared on the same pieces, whoever the search chose."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from blt.study import read_study
from blt.study.cells import Compared
from blt.study.folder import SCORES, StudyFolder
from small_study import copied
from tools import paired


def cells(said: str, name: str) -> list[list[str]]:
    """Of the rows of a run, the cells behind its name."""
    rows = [line.strip("| ").split(" | ") for line in said.splitlines()]
    return [row[1:] for row in rows if row[0] == name]


def test_runs_have_the_bits_of_the_study_and_more_than_the_first(
    done: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file, out = copied(done, tmp_path)
    compared = Compared.read(read_study(file), StudyFolder(out))
    budget = compared.budgets[0]
    one, other = (names[0] for names in list(compared.points)[:2])
    names = [compared.points[name, budget][0].name.rpartition("-s")[0] for name in (one, other)]
    paired.main([str(out), *names])
    said = capsys.readouterr().out
    (bits, more) = cells(said, names[1])
    assert len(cells(said, names[0])) == 1  # it has no more than itself
    assert bits[0] == str(len(compared.points[other, budget]))
    for kind, cell, share in zip(compared.heldout, bits[1:], more, strict=True):
        assert float(cell.split()[0]) == pytest.approx(
            compared.cell(other, budget, kind).value, abs=6e-4
        )
        wanted = 100 * compared.more(other, one, budget, kind).value
        assert float(share.split()[0]) == pytest.approx(wanted, abs=0.06)


def test_a_run_against_a_copy_of_itself_has_no_more_whatever_is_drawn(
    done: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _, out = copied(done, tmp_path)
    first = StudyFolder(out).lines(SCORES)[0]
    copy = {**first, "name": "copy-s0"}
    (out / SCORES).write_text("".join(json.dumps(line) + "\n" for line in (first, copy)))
    paired.main([str(out), first["name"], "copy"])
    assert all(cell == "+0.0 [+0.0, +0.0]" for cell in cells(capsys.readouterr().out, "copy")[1])


@pytest.mark.parametrize(
    ("runs", "said"),
    [(["flot"], "no scored run begins with 'flot'"), ([""], "begins several: .*; tell one of")],
)
def test_who_is_not_one_run_is_refused(
    done: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], runs: list[str], said: str
) -> None:
    with pytest.raises(SystemExit) as ended:
        paired.main([str(copied(done, tmp_path)[1]), *runs])
    assert ended.value.code == 2
    assert re.search(said, capsys.readouterr().err)


def test_a_folder_without_a_study_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        paired.main([str(tmp_path), "flat"])
    assert "no results.jsonl; name a study's folder" in capsys.readouterr().err
