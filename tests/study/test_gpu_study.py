"""The study for one GPU runs whole on a CPU, on tiny budgets and text, within its time."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest
import tomli_w

from blt.study import Search, costs, read_study, run_study
from blt.study.folder import EVALS, SCORES, StudyFolder
from blt.study.report import write_report

RECIPE = Path(__file__).parents[2] / "recipes" / "study" / "gpu.toml"
TINY = {"dim": 8, "heads": 1, "layers": 1}  # what a step of a ladder says, by how its name ends


def shrunk(step: list[str]) -> list[str]:
    """The same settings with the smallest values."""
    names = [change.split("=")[0] for change in step]
    return [f"{name}={TINY[name.rpartition('_')[2].rpartition('.')[2]]}" for name in names]


def tiny(tmp_path: Path) -> Path:
    """The recipe as it is, but for text, budgets, shapes, batches, rows and the number of rates."""
    text = tmp_path / "text.txt"
    text.write_text("".join(f"{n} bottles of beer on the wall, " for n in range(400)))
    data = tomllib.loads(RECIPE.read_text().replace("hash_rows = 100003", "hash_rows = 100"))
    data |= {"budgets": [1e8], "seeds": [1], "rate_tries": [1], "size_tries": [1], "climb": [0]}
    data["heldout"] = {"books": {"one": [str(text)]}}
    data["heldout_bytes"] = {"books": 512}
    data["base"]["data"] |= {"sources": [str(text)], "weights": [], "heldout": 0.1}
    data["base"]["data"] |= {"context_bytes": 128, "batch_bytes": 128}
    data["base"]["train"]["precision"] = "float32"
    data["patchers"][0]["share"] = 0.3
    data["patchers"][0]["recipe"]["byte_model"] |= {**TINY, "ff_dim": 8}
    data["patchers"][0]["recipe"]["data"]["batch_bytes"] = 128
    data["evaluations"] = [{"task": "noise", "paths": [str(text)], "max_bytes": 128}]
    data["ladders"] = {name: [shrunk(steps[0])] * 2 for name, steps in data["ladders"].items()}
    path = tmp_path / "gpu.toml"
    path.write_text(tomli_w.dumps(data))
    return path


def test_every_family_is_trained_scored_and_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(costs, "TIMED", 1)
    study = read_study(tiny(tmp_path))
    run_study(study, tmp_path / "out", seconds=600)
    folder = StudyFolder(tmp_path / "out")
    chosen = Search(study, folder.lines()).chosen()
    assert {point.family for point in chosen} == {family.name for family in study.families}
    assert {line["name"] for line in folder.lines(SCORES)} == {point.name for point in chosen}
    assert len(folder.lines(EVALS)) == len(chosen)
    write_report(study, tmp_path / "out")
    assert "## noise at 1e+08 FLOPs" in (tmp_path / "out" / "table.md").read_text()


def test_what_there_is_no_time_for_is_not_begun_and_what_is_there_is_scored(
    tmp_path: Path,
) -> None:
    study = read_study(tiny(tmp_path))
    run_study(study, tmp_path / "out", seconds=1e-6)
    folder = StudyFolder(tmp_path / "out")
    assert folder.lines() == []
    run_study(study, tmp_path / "out", seconds=5)
    lines = folder.lines()
    assert len(lines) > 0
    chosen = Search(study, lines).chosen()
    assert {line["name"] for line in folder.lines(SCORES)} == {point.name for point in chosen}
