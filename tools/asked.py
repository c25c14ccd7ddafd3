"""The command lines of tools: what they have in common."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from blt.errors import UserError, require
from tools.lines import Line, read_lines


def bare(tool: str, about: str | None) -> argparse.ArgumentParser:
    """No arguments yet; the help is the tool's docstring as it stands."""
    return argparse.ArgumentParser(
        prog=f"python -m {tool}",
        description=about,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )


def parser(tool: str, about: str | None) -> argparse.ArgumentParser:
    """Models, where text is and lines go, and where it runs; or a table of lines."""
    found = bare(tool, about)
    found.add_argument("models", nargs="*", metavar="[LABEL=]FOLDER_OR_NAME")
    found.add_argument("--data", type=Path, help="the folder of corpora")
    found.add_argument("--out", type=Path, help="lines are added to this file")
    found.add_argument("--device", default="cpu", help="cpu, cuda, cuda:1 or auto")
    found.add_argument("--table", type=Path, metavar="FILE", help="print its lines as a table")
    return found


def positive(word: str) -> int:
    """A whole number from 1 on, for argparse."""
    if (number := int(word)) < 1:
        raise ValueError(word)
    return number


def wanted(names: Iterable[str], words: Sequence[str]) -> list[str]:
    """Names in which one of the words is; all, if there are none.

    Raises:
        UserError: a word that is in no name.
    """
    known = list(names)
    for word in words:
        if not any(word in name for name in known):
            raise UserError(f"{word!r} is in none of: {', '.join(known)}")
    return [name for name in known if not words or any(word in name for word in words)]


@contextmanager
def mistakes_end() -> Iterator[None]:
    """What a caller got wrong is said in a line, and ends the tool with status 2."""
    try:
        yield
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)


def run(
    asked: argparse.ArgumentParser,
    measure: Callable[[argparse.Namespace], None],
    table: Callable[[Sequence[Line]], str],
    words: Sequence[str] | None = None,
) -> None:
    """Measure what is asked for, or print a table of what was; a mistake ends with status 2."""
    given = asked.parse_args(words)
    if given.table is None and not (given.models and given.data and given.out):
        asked.error("give models with --data and --out, or --table")
    with mistakes_end():
        if given.table is not None:
            require(given.table.is_file(), f"{given.table}: no such file; give that of --out")
            print(table(read_lines(given.table)))
        else:
            measure(given)
