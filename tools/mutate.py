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
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
LIST = ROOT / "tools" / "mutations.toml"
TABLE = ROOT / "docs" / "mutations.md"
MARK = "<!-- written by tools/mutate.py from here on -->\n"
COPIED = ("src", "tests", "docs", "benchmarks", "recipes", "deploy", "pyproject.toml", "README.md")
SURVIVES = "**survives**"
LIMIT = 240  # seconds of one mutation's tests
FAILED = 1  # exit code of pytest


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


def try_all(mutations: Sequence[Mutation], copy: Path, limit: float) -> Iterator[Result]:
    """One after the other; tests must pass where nothing is changed, or they would tell nothing."""
    passing: set[tuple[str, ...]] = set()
    for mutation in mutations:
        tests = tuple(mutation.tests)
        if tests not in passing and (test := failing_test(tests, copy, limit)):
            raise SystemExit(f"{test} fails without any mutation")
        passing.add(tests)
        yield try_out(mutation, copy, limit)


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


def record(results: Sequence[Result], mutations: Sequence[Mutation]) -> None:
    """Put results into the table, beside those of other mutations that the list still has."""
    head, _, old = TABLE.read_text().partition(MARK)
    rows = {_subject(m): line for m in mutations for line in old.splitlines() if _of(line, m)}
    rows |= {_subject(result.mutation): _row(result) for result in results}
    lines = [rows[_subject(m)] for m in mutations if _subject(m) in rows]
    survivors = sum(SURVIVES in line for line in lines)
    TABLE.write_text(
        f"{head}{MARK}\n{len(lines) - survivors} of {len(lines)} mutations are caught.\n\n"
        "| mutation | file | was | is | caught by | s |\n|---|---|---|---|---|---:|\n"
        + "\n".join(lines)
        + "\n"
    )


def _subject(mutation: Mutation) -> str:
    """The cells of a row that say what is changed."""
    where = mutation.file.removeprefix("src/blt/")
    cells = (mutation.name, f"`{where}`", _code(mutation.old), _code(mutation.new))
    return f"| {' | '.join(cells)} |"


def _of(line: str, mutation: Mutation) -> bool:
    return line.startswith(_subject(mutation))


def _row(result: Result) -> str:
    by = SURVIVES if result.caught_by is None else f"`{result.caught_by}`"
    return f"{_subject(result.mutation)} {by} | {result.seconds:.0f} |"


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
    for word in options.words:
        if not any(word in mutation.name for mutation in mutations):
            parser.error(f"{word!r} is in no mutation's name")
    words = options.words or [""]
    chosen = [mutation for mutation in mutations if any(word in mutation.name for word in words)]
    results: list[Result] = []
    with tempfile.TemporaryDirectory(prefix="mutate-") as folder:
        copy_tree(Path(folder))
        for result in try_all(chosen, Path(folder), options.limit):
            results.append(result)
            record(results, mutations)
            said = result.caught_by or "SURVIVES"
            print(f"{result.seconds:5.0f} s  {result.mutation.name}: {said}", flush=True)
    raise SystemExit(int(any(result.caught_by is None for result in results)))


if __name__ == "__main__":
    main()
