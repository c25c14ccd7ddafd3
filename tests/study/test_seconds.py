"""Trainings are timed side by side, whoever trained them and where."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from blt.study import Search, costs, read_study
from blt.study.folder import StudyFolder
from small_study import copied
from tools import seconds


@pytest.mark.usefixtures("quick")
def test_runs_are_timed_in_turns_and_without_their_weights(
    done: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = {line["name"]: line for line in StudyFolder(done.parent / "out").lines()}
    names = [name for name, line in lines.items() if line["family"] == "flat"][:2]
    words = [str(done), str(done.parent / "out"), *names, "--turns", "3"]
    seconds.main([*words, "--out", str(tmp_path / "timed")])
    said = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [line["name"] for line in said] == names
    for line in said:
        per_megabyte, turns = line["seconds_per_megabyte"], line["turns"]
        assert len(turns) == 3
        assert min(turns) <= per_megabyte <= max(turns)
        assert line["bytes_seen"] == lines[line["name"]]["bytes_seen"]
        whole = per_megabyte * line["bytes_seen"] / 1e6
        assert line["seconds"] == pytest.approx(whole, abs=1e-3)
    assert not [*(tmp_path / "timed").rglob("*.safetensors")]


def test_what_takes_as_long_as_its_model_has_learned_to_is_refused(
    done: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file, out = copied(done, tmp_path)
    chosen = Search(read_study(file), StudyFolder(out).lines()).chosen()
    name = next(point.name for point in chosen if point.patcher is not None)
    with pytest.raises(SystemExit) as ended:
        seconds.main([str(file), str(out), name, "--out", str(tmp_path / "timed")])
    assert ended.value.code == 2
    assert f"{name}: how it cuts" in capsys.readouterr().err


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(costs, "TIMED", 2)
