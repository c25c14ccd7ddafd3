"""What `import blt` offers: complete, documented, typed."""

from __future__ import annotations

import inspect
import os
import subprocess
import sys
from pathlib import Path

import pytest

import blt
import program

ROOT = Path(__file__).parents[1]


def test_every_public_name_exists_and_has_a_docstring_and_a_place_in_the_reference() -> None:
    reference = (ROOT / "docs" / "api.md").read_text()
    for name in blt.__all__:
        assert inspect.getdoc(getattr(blt, name)), name
        assert f":: blt.{name}\n" in reference, name
    assert set(blt.__all__) <= set(dir(blt))


def test_what_the_reference_lists_exists_and_has_a_docstring() -> None:
    for line in (ROOT / "docs" / "api.md").read_text().splitlines():
        kind, _, path = line.removeprefix(".. auto").partition(":: ")
        if line.startswith(".. auto") and kind != "module":
            module, _, name = path.rpartition(".")
            __import__(module)
            assert inspect.getdoc(getattr(sys.modules[module], name)), path


def test_importing_a_model_brings_nothing_that_it_does_not_need() -> None:
    slow = {"torch._dynamo", "matplotlib", "transformers", "datasets", "pyarrow", "fastapi", "ray"}
    code = f"import sys, blt; blt.BLT; print(*{slow!r} & set(sys.modules))"
    env = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    run = subprocess.run(
        [sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True
    )
    assert run.stdout.split() == []


@pytest.mark.slow  # a minute or more: nothing of torch is in mypy's cache
def test_strict_mypy_accepts_a_users_program_and_finds_its_mistakes(tmp_path: Path) -> None:
    right, wrong = tmp_path / "right.py", tmp_path / "wrong.py"
    right.write_text(Path(program.__file__).read_text())
    mistakes = ("blt.lod('x')", "blt.encode(3)", "blt.load().bits_per_byte('x').shape")
    wrong.write_text("import blt\n\n" + "\n".join(mistakes) + "\n")
    command = [
        sys.executable,
        "-m",
        "mypy",
        "--strict",
        "--config-file",
        "",
        "right.py",
        "wrong.py",
    ]
    env = {**os.environ, "PYTHONPATH": str(ROOT / "src")}  # as installed: py.typed says it is typed
    done = subprocess.run(
        command, cwd=tmp_path, env=env, capture_output=True, text=True, check=False
    )
    *errors, _ = done.stdout.splitlines()
    assert [error.split(": ")[0] for error in errors] == [f"wrong.py:{line}" for line in (3, 4, 5)]


def test_a_users_program_runs(tmp_path: Path) -> None:
    lm = blt.load()
    assert program.score(lm, "The old man") < 0
    assert program.cut("The old man")
    assert program.write(lm)
    (tmp_path / "text.txt").write_text("bottles of beer on the wall, " * 100)
    assert program.train(tmp_path / "text.txt", tmp_path / "run").kind == "byte"
    assert "no/such/folder" in program.misuse()
    assert program.build().patch("a b c").lengths.sum() == 6
