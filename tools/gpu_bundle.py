"""Pack what a bare GPU machine needs to run benchmarks/gpu.py into one file below 30 MB.

    python tools/gpu_bundle.py [--python 3.12] [--file build/gpu-bundle.tar.gz] [--study RECIPE]

There it needs torch and transformers, and no network:

    tar xzf gpu-bundle.tar.gz && python gpu-bundle/run.py

With a study its text goes along, up to 64 MB in all, and there it is run by

    python gpu-bundle/run.py study runs/gpu --minutes 8

Source and recipes are packed as they lie here, and the wheels that such a machine lacks are asked
of the package index that pip is configured for.
"""

from __future__ import annotations

import argparse
import glob
import io
import os
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "src")]

from benchmarks.gpu_jobs.about import COMMIT, commit  # noqa: E402
from blt.data.form import path_of, source_of  # noqa: E402
from blt.study import Study, read_study  # noqa: E402

FOLDER = "gpu-bundle"
STUDY = "study.toml"  # there
PACKED = ("src/blt", "benchmarks", "recipes", "pyproject.toml", "LICENSE", "NOTICE")
# Of the dependencies in pyproject.toml: torch and transformers bring the others, and the benchmark
# draws nothing.
LACKING = ("pydantic>=2.10", "tyro>=1.0", "rich>=13", "tomli-w>=1.0", "filelock>=3.13")
PLATFORM = "manylinux2014_x86_64"
MOST = 30 * 10**6  # bytes
MOST_WITH_TEXT = 64 * 10**6


def download(folder: Path, python: str) -> list[Path]:
    """Fetch the wheels, for a version of Python on Linux with an x86 processor."""
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--only-binary=:all:"]
    where = ["--python-version", python, "--implementation", "cp", "--platform", PLATFORM]
    subprocess.run([*command, *where, "--dest", str(folder), *LACKING], check=True)
    return sorted(folder.glob("*.whl"))


def texts_of(study: Study) -> list[str]:
    """Files and folders that a study reads, as its recipe names them, globs resolved."""
    sources = (source_of(given, study.where) for given in study.base["data"]["sources"])
    names = [*map(path_of, sources)]
    names += [name for kind in study.heldout.values() for text in kind.values() for name in text]
    names += [name for of in study.characters for name in (*of.words, *of.unseen)]
    names += [name for one in study.asked for name in one.files]
    found = [
        sorted(glob.glob(name, recursive=True)) or [name]
        for name in names
        if not name.startswith(("builtin:", "hf:"))
    ]
    return list(dict.fromkeys(name for files in found for name in files))


def pack(
    file: Path,
    wheels: Sequence[Path],
    python: str,
    texts: Sequence[str] = (),
    study: Path | None = None,
) -> None:
    """Write the bundle.

    Args:
        file: a .tar.gz; its folder is made.
        wheels: to go along.
        python: the version that they are for.
        texts: files that a recipe names, relative to where it is run: in the bundle's folder.
        study: this recipe.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(file, "w:gz") as bundle:
        bundle.add(ROOT / "tools" / "gpu_bundle_run.py", f"{FOLDER}/run.py")
        if study is not None:
            bundle.add(study, f"{FOLDER}/{STUDY}")
        for name in PACKED:
            bundle.add(ROOT / name, f"{FOLDER}/{name}", filter=_without_caches)
        for wheel in wheels:
            bundle.add(wheel, f"{FOLDER}/wheels/{wheel.name}")
        for name in texts:
            bundle.add(name, os.path.normpath(f"{FOLDER}/{name}"))
        for name, text in ((COMMIT, commit() or "unknown"), ("PYTHON", python)):
            entry = tarfile.TarInfo(f"{FOLDER}/{name}")
            entry.size = len(text)
            bundle.addfile(entry, io.BytesIO(text.encode()))


def _without_caches(entry: tarfile.TarInfo) -> tarfile.TarInfo | None:
    return None if entry.name.endswith("__pycache__") else entry


def main() -> None:
    parser = argparse.ArgumentParser(description="Pack benchmarks/gpu.py for a bare GPU machine.")
    parser.add_argument("--python", default="3.12", help="of that machine")
    parser.add_argument("--file", type=Path, default=ROOT / "build" / f"{FOLDER}.tar.gz")
    parser.add_argument("--study", type=Path, help="a recipe whose text is to go along")
    options = parser.parse_args()
    texts = [] if options.study is None else texts_of(read_study(options.study))
    if lacking := [name for name in texts if not Path(name).exists()]:
        parser.exit(1, f"{options.study}: {lacking[0]}: no such file\n")
    most = MOST_WITH_TEXT if texts else MOST
    with tempfile.TemporaryDirectory() as scratch:
        try:
            wheels = download(Path(scratch), options.python)
        except subprocess.CalledProcessError:
            parser.exit(1, "the wheels could not be had; is there a network?\n")
        pack(options.file, wheels, options.python, texts, options.study)
    size = options.file.stat().st_size
    print(f"{options.file}: {size / 1e6:.1f} MB, {len(wheels)} wheels")
    print(f"there: tar xzf {options.file.name} && python {FOLDER}/run.py")
    if size > most:
        parser.exit(1, f"it should have less than {most / 1e6:.0f} MB\n")


if __name__ == "__main__":
    main()
