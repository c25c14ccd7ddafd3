#!/usr/bin/env python
"""Change the core on purpose, one place at a time, and see whether the default tests notice.

    python tools/mutate.py [NAME ...] [--out docs/mutations.md]

tools/mutations.toml lists the changes: a name, a file, a text that occurs in it exactly once, what
stands there instead, and the tests that should fail. Each is made in a copy of the project, never
here. Left out, NAME means all of them; --out writes the table, which is for all.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
import tomllib
from dataclasses import dataclass
from datetime import date
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LIST = ROOT / "tools" / "mutations.toml"
COPIED = ("src", "tests", "recipes", "docs", "deploy", "tools", "benchmarks", "pyproject.toml")
LIMIT = 300.0  # seconds; a change that makes tests run for ever is noticed too
HEAD = """# Mutations

`make mutate` changes the core on purpose, one place at a time, in a copy of the project, and
runs the default tests that should notice. The changes are listed in `tools/mutations.toml`,
chosen by hand: tools that change every operator make thousands, most of them in messages and in
code where nothing can go wrong silently, and each needs minutes of tests. One whose text does not
occur exactly once is an error, so the list stays true to the code.

"""


@dataclass(frozen=True)
class Mutation:
    name: str
    file: str
    old: str
    new: str
    tests: tuple[str, ...]  # arguments of pytest

    def check(self) -> None:
        """Raises ValueError where the text does not occur exactly once."""
        count = (ROOT / self.file).read_text().count(self.old)
        if count != 1:
            raise ValueError(f"{self.name}: {self.file} has {self.old!r} {count} times, not once")


@dataclass(frozen=True)
class Verdict:
    caught: bool
    by: str  # the first test that failed
    seconds: float


def read() -> list[Mutation]:
    entries = tomllib.loads(LIST.read_text())["mutation"]
    found = [Mutation(**{**entry, "tests": tuple(entry["tests"])}) for entry in entries]
    names = [one.name for one in found]
    if repeated := {name for name in names if names.count(name) > 1}:
        raise ValueError(f"{LIST}: twice: {', '.join(sorted(repeated))}")
    for one in found:
        one.check()
    return found


def copy(target: Path) -> None:
    for name in COPIED:
        source = ROOT / name
        if source.is_dir():
            ignored = shutil.ignore_patterns("__pycache__", "*.jsonl", "*.png")
            shutil.copytree(source, target / name, ignore=ignored)
        else:
            shutil.copy(source, target / name)


def judge(mutation: Mutation, folder: Path) -> Verdict:
    path = folder / mutation.file
    original = path.read_text()
    path.write_text(original.replace(mutation.old, mutation.new))
    begun = time.monotonic()
    try:
        return _run(mutation, folder, begun)
    finally:
        path.write_text(original)


def _run(mutation: Mutation, folder: Path, begun: float) -> Verdict:
    command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider"]
    env = {**os.environ, "PYTHONPATH": str(folder / "src"), "OMP_NUM_THREADS": "1"}
    try:
        done = subprocess.run(
            [*command, *mutation.tests],
            cwd=folder,
            env=env,
            capture_output=True,
            text=True,
            timeout=LIMIT,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return Verdict(True, "none: they do not end", time.monotonic() - begun)
    if done.returncode not in (0, 1, 2):  # 2: the change breaks what tests import
        raise RuntimeError(f"{mutation.name}: pytest ended with {done.returncode}:\n{done.stdout}")
    failed = re.search(r"^(?:FAILED|ERROR) (\S+)", done.stdout, re.MULTILINE)
    by = failed.group(1) if failed else ""
    return Verdict(done.returncode != 0, by, time.monotonic() - begun)


def table(verdicts: dict[Mutation, Verdict]) -> str:
    caught = sum(verdict.caught for verdict in verdicts.values())
    lines = [
        f"{caught} of {len(verdicts)} were caught, on {date.today():%-d %B %Y}.\n",
        "| change | file | caught by | seconds |",
        "|---|---|---|---|",
    ]
    for one, verdict in verdicts.items():
        by = f"`{verdict.by.removeprefix('tests/')}`" if verdict.by else "**nothing**"
        file = one.file.removeprefix("src/blt/")
        lines.append(f"| {one.name} | `{file}` | {by} | {verdict.seconds:.0f} |")
    return HEAD + "\n".join(lines) + "\n"


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("names", nargs="*", metavar="NAME")
    parser.add_argument("--out", type=Path)
    asked = parser.parse_args()
    mutations = [one for one in read() if not asked.names or one.name in asked.names]
    verdicts: dict[Mutation, Verdict] = {}
    with tempfile.TemporaryDirectory() as folder:
        copy(Path(folder))
        for number, one in enumerate(mutations, 1):
            verdict = verdicts[one] = judge(one, Path(folder))
            word = f"caught by {verdict.by}" if verdict.caught else "NOT CAUGHT"
            done = f"{number}/{len(mutations)} {one.name}"
            print(f"{done}: {word} ({verdict.seconds:.0f} s)", flush=True)
    if asked.out is not None:
        asked.out.write_text(table(verdicts))
    return 0 if all(verdict.caught for verdict in verdicts.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
