from __future__ import annotations

from pathlib import Path

import pytest

from blt.study import read_study, run_study
from once import once
from small_study import written


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return written(tmp_path)


@pytest.fixture(scope="session")
def done(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small study that has run to its end: its file, and the folder ``out`` beside it."""

    def study(folder: Path) -> None:
        file = written(folder)
        run_study(read_study(file), file.parent / "out")

    return once(tmp_path_factory, "study", study) / "study.toml"
