"""Wheel and sdist: what is in them, and that what is installed from them works."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
import tarfile
import venv
import zipfile
from email.parser import Parser
from pathlib import Path

import pytest

import blt

ROOT = Path(__file__).parents[1]
NEEDED = ("py.typed", ".safetensors", ".json", ".h", ".cpp", ".js", ".html", ".css", ".svg", ".py")
pytestmark = pytest.mark.slow  # a minute: a build, and an installation into an empty environment


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A wheel and an sdist, without network: by the hatchling that is installed."""
    out = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(out), str(ROOT)]
    subprocess.run(command, check=True, capture_output=True)  # the wheel comes from the sdist
    return {"wheel": next(out.glob("*.whl")), "sdist": next(out.glob("*.tar.gz"))}


def tracked(folder: str) -> set[str]:
    command = ["git", "ls-files", folder]
    done = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True)
    return set(done.stdout.split())


def test_the_wheel_holds_the_package_its_metadata_and_nothing_else(built: dict[str, Path]) -> None:
    names = set(zipfile.ZipFile(built["wheel"]).namelist())
    metadata = {name for name in names if ".dist-info/" in name}
    assert {f"src/{name}" for name in names - metadata} == tracked("src")
    for ending in NEEDED:
        assert any(name.endswith(ending) for name in names), ending
    for licence in ("LICENSE", "NOTICE"):
        assert any(name.endswith(f"licenses/{licence}") for name in metadata)


def test_the_sdist_holds_what_is_needed_to_build_test_and_document(built: dict[str, Path]) -> None:
    with tarfile.open(built["sdist"]) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    for folder in ("src", "tests", "benchmarks", "recipes", "docs", "results", "deploy", "tools"):
        assert tracked(folder) <= names
    assert not [name for name in names if name.startswith(("runs", ".venv", ".git/", "dist"))]


def test_the_metadata_says_what_the_package_is(built: dict[str, Path]) -> None:
    wheel = zipfile.ZipFile(built["wheel"])
    name = next(name for name in wheel.namelist() if name.endswith("/METADATA"))
    metadata = Parser().parsestr(wheel.read(name).decode())
    assert metadata["Version"] == blt.__version__
    assert metadata["License-Expression"] == "Apache-2.0"
    assert metadata["Requires-Python"] == ">=3.11"
    assert metadata["Description-Content-Type"] == "text/markdown"
    classifiers = metadata.get_all("Classifier") or []
    for minor in (11, 12, 13):
        assert f"Programming Language :: Python :: 3.{minor}" in classifiers
    extras = {"bench", "cluster", "convert", "data", "dev", "docs", "eval", "serve", "study"}
    assert set(metadata.get_all("Provides-Extra") or []) == extras


def test_what_is_installed_works_away_from_the_source(
    built: dict[str, Path], tmp_path: Path
) -> None:
    python = environment(tmp_path / "venv")
    install = [python, "-m", "pip", "install", "--no-deps", "--no-index"]
    env = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}

    def run(*command: str) -> str:
        done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout

    run(*install, str(built["wheel"]))  # which was made from the sdist
    command = str(Path(python).with_name("blt"))
    where = run(python, "-c", "import blt; print(blt.__file__)")
    assert Path(where.strip()).is_relative_to(tmp_path)
    assert run(command, "--version") == f"blt {blt.__version__}\n"
    assert "bytes per patch" in run(command, "patch", "Bytes are all you need.")
    assert run(command, "generate", "The old man ", "--max-bytes", "5")


def environment(folder: Path) -> str:
    """An environment that sees the packages of this one, but not the blt in it."""
    venv.create(folder, with_pip=True)
    python = str(folder / "bin" / "python")
    code = "import sysconfig; print(sysconfig.get_paths()['purelib'])"
    found = subprocess.run([python, "-c", code], check=True, capture_output=True, text=True)
    # A path in a .pth comes after what is installed here, and its own .pth files are not followed.
    pth = Path(found.stdout.strip()) / "packages-of-the-tests.pth"
    pth.write_text(sysconfig.get_paths()["purelib"])
    return python
