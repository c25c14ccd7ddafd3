"""A GPU machine without a network, and with little more than torch, measures with one file."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

import pytest

from benchmarks.machine import ROOT

sys.path.append(str(ROOT / "tools"))
import gpu_bundle

HERE = ".".join(map(str, sys.version_info[:2]))
BROUGHT = {"torch", "numpy", "safetensors", "jinja2"}  # by torch and transformers
NOT_USED = {"matplotlib"}
YOUNG = {"pydantic", "pydantic-core", "annotated-types", "typing-inspection"}

STUDY = """
budgets = [1e9]
seeds = [1]
lrs = [1e-3]
[base.data]
sources = ["../data/[ab].txt", "builtin:python"]
[heldout.books]
one = ["../data/held.txt"]
[[families]]
name = "flat"
group = "flat"
recipe = { kind = "byte" }
sizes = [["byte_model.layers=1"]]
"""


def unpacked(file: Path, folder: Path) -> Path:
    with tarfile.open(file) as bundle:
        bundle.extractall(folder, filter="data")
    return folder / gpu_bundle.FOLDER


def measured(bundle: Path, python: Path | str, *options: str) -> subprocess.CompletedProcess[str]:
    """Run it as somebody would, from a folder and with an environment that know nothing of ours."""
    command = [str(python), str(bundle / "run.py"), "results", "--smoke", *options]
    env = {"PATH": "/usr/bin:/bin", "HOME": str(bundle)}
    return subprocess.run(
        command, cwd=bundle.parent, env=env, capture_output=True, text=True, check=False
    )


def test_every_dependency_comes_along_or_is_there() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    needed = {re.split(r"[<>=!]", name)[0] for name in project["dependencies"]}
    assert (
        needed == {re.split(r"[<>=!]", name)[0] for name in gpu_bundle.LACKING} | BROUGHT | NOT_USED
    )


def test_a_bundle_measures_itself_and_unpacks_only_wheels_that_are_lacking(tmp_path: Path) -> None:
    wheels = []
    for module in ("torch", "only_in_a_wheel"):
        wheels.append(tmp_path / f"{module}-1-py3-none-any.whl")
        with zipfile.ZipFile(wheels[-1], "w") as wheel:
            wheel.writestr(f"{module}/__init__.py", "")
            wheel.writestr(f"{module}-1.dist-info/METADATA", "")
    gpu_bundle.pack(tmp_path / "new" / "bundle.tar.gz", wheels, HERE)
    bundle = unpacked(tmp_path / "new" / "bundle.tar.gz", tmp_path)
    assert not list(bundle.rglob("__pycache__"))
    (bundle / "COMMIT").write_text("of the bundle")
    done = measured(bundle, sys.executable, "--only", "device")
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "results" / "gpu.json").read_text())
    assert found["about"]["commit"] == "of the bundle"
    assert list(found["results"]) == ["device"]
    assert "error" not in found["results"]["device"]
    unpacked_ones = sorted(path.name for path in (bundle / "site").iterdir())
    assert unpacked_ones == ["only_in_a_wheel", "only_in_a_wheel-1.dist-info"]


def test_wheels_for_another_python_are_refused_in_one_line(tmp_path: Path) -> None:
    wheel = tmp_path / "only_in_a_wheel-1-cp39-cp39-manylinux.whl"
    with zipfile.ZipFile(wheel, "w") as packed:
        packed.writestr("only_in_a_wheel/__init__.py", "")
    gpu_bundle.pack(tmp_path / "bundle.tar.gz", [wheel], "3.9")
    done = measured(unpacked(tmp_path / "bundle.tar.gz", tmp_path), sys.executable)
    assert done.returncode == 1
    assert "wheels for Python 3.9" in done.stderr
    assert f"--python {HERE}" in done.stderr


def test_the_text_of_a_study_comes_along_where_its_recipe_looks_for_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "data").mkdir()
    for name in ("a.txt", "b.txt", "held.txt"):
        (tmp_path / "data" / name).write_text(name)
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    (tmp_path / "here" / "study.toml").write_text(STUDY)
    texts = gpu_bundle.texts_of(gpu_bundle.read_study("study.toml"))
    assert texts == ["../data/a.txt", "../data/b.txt", "../data/held.txt"]
    gpu_bundle.pack(tmp_path / "bundle.tar.gz", [], HERE, texts, Path("study.toml"))
    bundle = unpacked(tmp_path / "bundle.tar.gz", tmp_path / "there")
    assert all((bundle / text).is_file() for text in texts)
    assert (bundle / gpu_bundle.STUDY).read_text() == STUDY
    (bundle / gpu_bundle.STUDY).unlink()
    command = [sys.executable, str(bundle / "run.py"), "study", "out"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (done.returncode, "no study was packed" in done.stderr) == (1, True)


@pytest.mark.slow
def test_a_bare_machine_runs_every_job_from_the_bundle(tmp_path: Path) -> None:
    """Torch, transformers and what their older releases bring, and nothing else."""
    try:
        wheels = gpu_bundle.download(tmp_path / "wheels", HERE)
    except subprocess.CalledProcessError:
        pytest.skip("no package index can be reached")
    gpu_bundle.pack(tmp_path / "bundle.tar.gz", wheels, HERE)
    assert (tmp_path / "bundle.tar.gz").stat().st_size < gpu_bundle.MOST
    python = bare(tmp_path / "bare")
    lacking = subprocess.run([python, "-c", "import pydantic"], capture_output=True, check=False)
    assert lacking.returncode != 0
    done = measured(unpacked(tmp_path / "bundle.tar.gz", tmp_path), python)
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "results" / "gpu.json").read_text())["results"]
    assert {name: row["error"] for name, row in found.items() if "error" in row} == {}


def bare(folder: Path) -> Path:
    """The Python of a new environment that holds only torch and transformers."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True)
    (site,) = folder.glob("lib/python*/site-packages")
    for name in closure({"torch", "transformers"}) - YOUNG:
        for file in distribution(name).files or []:
            top = file.parts[0]
            if top not in ("..", "__pycache__") and not (site / top).exists():
                (site / top).symlink_to(Path(str(distribution(name).locate_file(top))))
    return folder / "bin" / "python"


def closure(names: set[str]) -> set[str]:
    """Packages, and those that they need, as far as they are installed."""
    found: set[str] = set()
    while names:
        name = names.pop()
        try:
            needs = distribution(name).requires or []
        except PackageNotFoundError:
            continue
        found.add(name)
        wanted = {re.split(r"[^\w.-]", need)[0] for need in needs if "extra ==" not in need}
        names |= wanted - found
    return found
