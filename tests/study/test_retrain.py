"""A run that is trained again is close to what was published, or gives up as that did."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from blt.study import Search, read_study
from blt.study.folder import SCORES, StudyFolder
from small_study import changed, copied
from tools import retrain
from tools.retrain import came_out_alike, compared


def _line(bits: dict[str, float | None]) -> dict[str, Any]:
    known = [value for value in bits.values() if value is not None]
    mean = sum(known) / len(known) if known else None
    return {"name": "run", "validation": bits, "validation_bits": mean, "bytes_seen": 9}


@pytest.mark.parametrize(
    ("before", "now", "apart", "gave_up", "alike"),
    [
        ({"a": 2.0, "b": 3.0}, {"a": 2.0, "b": 3.0004}, 0.0004, None, True),
        ({"a": 2.0, "b": 3.0}, {"a": 2.0, "b": 3.002}, 0.002, None, False),
        ({}, {}, None, ["published", "again"], True),
        ({}, {"a": 2.0}, None, ["published"], False),
        ({"a": 2.0}, {}, None, ["again"], False),
        ({"a": None}, {"a": None}, None, ["published", "again"], True),
    ],
)
def test_a_run_that_gave_up_is_compared_too(
    before: dict[str, float | None],
    now: dict[str, float | None],
    apart: float | None,
    gave_up: list[str] | None,
    alike: bool,
) -> None:
    line = compared(_line(before), _line(now), 1)
    assert line["source_apart"] == (None if apart is None else pytest.approx(apart))
    assert line.get("gave_up") == gave_up
    assert came_out_alike(line) is alike


def test_a_run_that_is_trained_again_is_scored_into_the_study_once(
    done: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file, out = copied(done, tmp_path)
    study, folder = read_study(file), StudyFolder(out)
    search = Search(study, folder.lines())
    chosen = next(point for point in search.chosen() if point.family == "flat")
    beaten = next(point for point in search.beaten() if point.family == "flat")
    before = folder.lines(SCORES)
    first = next(line for line in before if line["name"] == chosen.name)
    kept = [line for line in before if line is not first]
    (out / SCORES).write_text("".join(json.dumps(line) + "\n" for line in kept))
    words = [str(file), str(out), chosen.name, beaten.name, "--out", str(tmp_path / "again")]
    for _ in range(2):
        with pytest.raises(SystemExit) as ended:
            retrain.main([*words, "--score"])
        assert ended.value.code == 0, capsys.readouterr().out
    assert folder.lines(SCORES)[:-2] == kept
    again, other = folder.lines(SCORES)[-2:]
    assert again == first
    assert other["name"] == beaten.name
    assert other["bits"] != first["bits"]


def test_scores_of_a_run_without_weights_or_of_other_text_are_refused(
    done: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file, out = copied(done, tmp_path)
    beaten = Search(read_study(file), StudyFolder(out).lines()).beaten()[0].name
    words = [str(file), str(out), beaten, "--out", str(tmp_path / "again")]
    with pytest.raises(SystemExit):
        retrain.main(words)
    shutil.rmtree(tmp_path / "again" / "1" / "runs" / beaten / "checkpoint")
    with pytest.raises(SystemExit):
        retrain.main([*words, "--score"])
    assert "are gone; train into a new --out" in capsys.readouterr().err
    changed(file, "strange = 200", "strange = 150")
    with pytest.raises(SystemExit):
        retrain.main([*words, "--score"])
    assert "is not what" in capsys.readouterr().err
