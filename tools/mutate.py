"""Change the core on purpose, one mistake at a time, and see whether a test notices.

python tools/mutate.py                    # all of tools/mutations.toml; writes docs/mutations.md
python tools/mutate.py --check            # only: is every old text found exactly once?
python tools/mutate.py rope resume        # only mutations whose name holds one of these words

Each mutation is made in a copy of the source tree, never in the working tree, and only the tests
that belong to it are run. It is caught where one of them fails, or takes longer than the limit.
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
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
LIST = ROOT / "tools" / "mutations.toml"
TABLE = ROOT / "docs" / "mutations.md"
MARK = "<!-- written by tools/mutate.py from here on -->\n"
COPIED = ("src", "tests", "docs", "benchmarks", "recipes", "deploy", "pyproject.toml", "README.md")
LIMIT = 240  # seconds of one mutation's tests
FAILED, NO_TESTS = 1, 5  # exit codes of pytest


@dataclass(frozen=True)
class Mutation:
    """One mistake.

    Attributes:
        name: what goes wrong, in a few words.
        file: relative to the root.
        old: what stands there, exactly once.
        new: what stands there instead.
        tests: arguments of pytest: files, test ids, -k and an expression.
    """

    name: str
    file: str
    old: str
    new: str
    tests: list[str]

    def fault(self, root: Path) -> str | None:
        """Why it cannot be made in this tree."""
        path = root / self.file
        if not path.is_file():
            return f"{self.name}: no file {self.file}"
        count = path.read_text().count(self.old)
        if count != 1:
            return f"{self.name}: {self.old!r} is {count} times in {self.file}, not once"
        if self.old == self.new:
            return f"{self.name}: changes nothing"
        return None


@dataclass(frozen=True)
class Result:
    """What became of a mutation."""

    mutation: Mutation
    caught_by: str | None  # a test; None: it survived
    seconds: float


def read_list(path: Path = LIST) -> list[Mutation]:
    """All mutations, in the order of the file."""
    tables = tomllib.loads(path.read_text())["mutation"]
    mutations = [Mutation(**table) for table in tables]
    names = [mutation.name for mutation in mutations]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise SystemExit(f"{path}: twice: {', '.join(twice)}")
    return mutations


def check(mutations: Sequence[Mutation], root: Path = ROOT) -> None:
    """End with all faults of the list, if there are any."""
    faults = [fault for mutation in mutations if (fault := mutation.fault(root))]
    if faults:
        raise SystemExit("\n".join(faults))


def try_out(mutation: Mutation, copy: Path, limit: float) -> Result:
    """Make one mutation in a copy of the tree, run its tests, and take it back."""
    path = copy / mutation.file
    text = path.read_text()
    begun = time.monotonic()
    path.write_text(text.replace(mutation.old, mutation.new))
    try:
        caught_by = failing_test(mutation.tests, copy, limit)
    finally:
        path.write_text(text)
    return Result(mutation, caught_by, time.monotonic() - begun)


def failing_test(tests: Sequence[str], copy: Path, limit: float) -> str | None:
    """The first test that fails in ``copy``; None where all pass.

    Raises:
        SystemExit: pytest found no tests, or could not run them.
    """
    command = [sys.executable, "-m", "pytest", "-x", "-q", "--no-header", "--tb=no"]
    command += ["-p", "no:cacheprovider", *tests]
    environment = {
        **os.environ,
        "PYTHONPATH": str(copy / "src"),
        "PYTHONDONTWRITEBYTECODE": "1",
        "HYPOTHESIS_STORAGE_DIRECTORY": str(copy / ".hypothesis"),
        "XDG_CACHE_HOME": str(copy / ".cache"),  # what is compiled from mutated C++ stays here
    }
    try:
        run = subprocess.run(
            command, cwd=copy, env=environment, timeout=limit, capture_output=True, text=True
        )
    except subprocess.TimeoutExpired:
        return f"more than {limit:.0f} s"
    if run.returncode == 0:
        return None
    found = re.search(r"^(?:FAILED|ERROR) (\S+)", run.stdout, re.MULTILINE)
    if run.returncode == FAILED and found:
        return found[1].partition("[")[0]
    raise SystemExit(f"pytest {' '.join(tests)}: status {run.returncode}\n{run.stdout}{run.stderr}")


def copy_tree(target: Path) -> None:
    """What tests need of the working tree."""
    for name in COPIED:
        source = ROOT / name
        if source.is_dir():
            ignored = shutil.ignore_patterns("__pycache__", "*.pyc")
            shutil.copytree(source, target / name, ignore=ignored)
        elif source.is_file():
            shutil.copy(source, target / name)


def as_table(results: Sequence[Result]) -> str:
    """Markdown."""
    caught = sum(result.caught_by is not None for result in results)
    lines = [
        f"{caught} of {len(results)} mutations are caught.\n",
        "| mutation | file | was | is | caught by | s |",
        "|---|---|---|---|---|---:|",
    ]
    for result in results:
        mutation = result.mutation
        where = mutation.file.removeprefix("src/blt/")
        by = "**survives**" if result.caught_by is None else f"`{result.caught_by}`"
        cells = (mutation.name, f"`{where}`", _code(mutation.old), _code(mutation.new), by)
        lines.append(f"| {' | '.join(cells)} | {result.seconds:.0f} |")
    return "\n".join(lines) + "\n"


def _code(text: str) -> str:
    """In one cell of a table."""
    line = " ⏎ ".join(part.strip() for part in text.strip().splitlines()).replace("|", "\\|")
    return f"``{line}``" if line else "nothing"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])  # type: ignore[union-attr]
    parser.add_argument("words", nargs="*", help="only mutations whose name holds one of these")
    parser.add_argument("--check", action="store_true", help="only check the list")
    parser.add_argument("--limit", type=float, default=LIMIT, help="seconds for each")
    options = parser.parse_args()
    mutations = read_list()
    check(mutations)
    if options.check:
        print(f"{len(mutations)} mutations fit the source tree")
        return
    if options.words:
        mutations = [m for m in mutations if any(word in m.name for word in options.words)]
    results = []
    with tempfile.TemporaryDirectory(prefix="mutate-") as folder:
        copy_tree(Path(folder))
        passing: set[tuple[str, ...]] = set()
        for mutation in mutations:
            tests = tuple(mutation.tests)
            if tests not in passing and (test := failing_test(tests, Path(folder), options.limit)):
                raise SystemExit(f"{test} fails without any mutation")
            passing.add(tests)
            results.append(try_out(mutation, Path(folder), options.limit))
            result = results[-1]
            print(f"{result.seconds:5.0f} s  {mutation.name}: {result.caught_by or 'SURVIVES'}")
            sys.stdout.flush()
    if not options.words:
        TABLE.write_text(TABLE.read_text().partition(MARK)[0] + MARK + "\n" + as_table(results))
    raise SystemExit(int(any(result.caught_by is None for result in results)))


if __name__ == "__main__":
    main()
