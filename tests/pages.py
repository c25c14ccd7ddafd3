"""Code blocks of Markdown pages, run as a reader would run them.

Python blocks of a page share a namespace; lines after ``$`` follow bash's rules; TOML is read as
what it is, and written to the file that its first line names. A comment before a block tells what
is not run (``<!-- not run: needs a GPU -->``), or only by ``pytest -m slow`` (``<!-- slow: why
-->``).
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import yaml
from sybil import Document, Example, Region, Sybil
from sybil.parsers.markdown import CodeBlockParser, PythonCodeBlockParser
from sybil.parsers.markdown.lexers import DirectiveInHTMLCommentLexer

from blt import cli
from blt.files.configs import from_dict
from blt.study import read_study
from blt.train import DataConfig, read_recipe

ROOT = Path(__file__).parents[1]
PAGES = sorted([ROOT / "README.md", *(ROOT / "docs").rglob("*.md")])
LANGUAGES = {"python", "console", "toml", "yaml"}  # that are run or read
SHORT = (  # trainings
    *("train.steps=2", "train.evals=1", "train.eval_bytes=500", "train.sample_prompts=[]"),
    *("data.max_bytes=10000", "data.batch_bytes=1024", "data.context_bytes=512"),
)


@dataclass(frozen=True)
class Mark:
    """A comment about the block after it."""

    kind: str  # "not run" or "slow"
    reason: str


def marks(document: Document) -> Iterable[Region]:
    for found in DirectiveInHTMLCommentLexer("not run|slow")(document):
        mark = Mark(found.lexemes["directive"], found.lexemes["arguments"])
        yield Region(found.start, found.end, mark, lambda _: None)


def blocks(page: Path) -> Iterator[tuple[Example, Mark | None]]:
    """Of a page, each with the mark before it."""
    mark = None
    for example in PARSER.parse(page):
        if isinstance(example.parsed, Mark):
            assert mark is None, f"{page}: a mark without a block: {mark}"
            mark = example.parsed
        else:
            yield example, mark
            mark = None
    assert mark is None, f"{page}: a mark without a block: {mark}"


def run(page: Path, slow: bool = False) -> None:
    """All blocks of a page but those that are marked; ``slow``: those that are slow too."""
    for example, mark in blocks(page):
        if mark is None or (slow and mark.kind == "slow"):
            example.evaluate()


def run_console(example: Example) -> None:
    """The lines after ``$``; a backslash at their end goes on."""
    source = example.parsed.replace("\\\n", " ")
    for line in source.splitlines():
        if line.startswith("$ "):
            run_command(line.removeprefix("$ "))


def run_command(command: str) -> None:
    program = command.split()[0]
    if program == "blt" and "|" not in command:
        assert run_blt(words(command)) == 0, command
    elif program == "make":
        subprocess.run(["make", "--dry-run", *words(command)], cwd=ROOT, check=True)
    elif program == "pip":
        extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
        for names in re.findall(r"(?:blt|\.)\[([\w,-]+)\]", command):
            assert {*names.split(",")} <= extras["optional-dependencies"].keys(), command
    else:
        shell = f'blt() {{ "{sys.executable}" -m blt "$@"; }}; curl() {{ command curl -fsS "$@"; }}'
        subprocess.run(["bash", "-eo", "pipefail", "-c", f"{shell}; {command}"], check=True)


def words(command: str) -> list[str]:
    """What follows the program, after quotes, globs and comments."""
    program = command.split()[0]
    script = f'{program}() {{ printf "%s\\0" "$@"; }}; {command}'
    done = subprocess.run(["bash", "-c", script], check=True, capture_output=True, text=True)
    return done.stdout.split("\0")[:-1]


def run_blt(arguments: list[str]) -> int:
    """The command line, in this process; trainings take two steps, in a new run folder."""
    if arguments[0] == "train":
        named = [at for at, word in enumerate(arguments) if re.match(r"\w+\.?\w*=", word)]
        after = max(named, default=1) + 1  # overrides stand together
        arguments[after:after] = SHORT
        if "--run" in arguments and "--resume" not in arguments:
            run_folder = arguments[arguments.index("--run") + 1]
            shutil.rmtree(run_folder, ignore_errors=True)
    return cli.main(arguments)


def read_toml(example: Example) -> None:
    """A study, a recipe, or a part of one."""
    found = tomllib.loads(example.parsed)
    name = re.match(r"# (\S+\.toml)\n", example.parsed)
    if name is None:
        from_dict(DataConfig, found.pop("data"), example.path)
        assert not found
        return
    Path(name[1]).write_text(example.parsed)
    if found.keys() == {"characters"}:
        read_study("study.toml", characters=name[1])  # the study of the same page
        return
    (read_study if "families" in found else read_recipe)(name[1])


PARSER = Sybil(
    [
        marks,
        PythonCodeBlockParser(),
        CodeBlockParser("console", run_console),
        CodeBlockParser("toml", read_toml),
        CodeBlockParser("yaml", lambda example: yaml.safe_load(example.parsed) and None),
    ]
)
