"""Names and texts from outside are shown, and never obeyed by the terminal or taken for styles."""

from __future__ import annotations

import io
import json
import logging
import os
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.table import Table
from rich.text import Text

import blt
from blt import cli
from blt.cli import command
from blt.cli.eval_view import draw
from blt.report.console import Console
from blt.report.progress import training_bar
from blt.texts.printable import printable
from shapes import TINY

CONTROL = re.compile("[\x00-\x09\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
STYLE = re.compile(r"\x1b\[[\d;]*m")
ODD = (
    "red\x1b[31m.txt",
    "[bold]x[/x].txt",
    "caf\udce9.txt",
    "\u202etxt.md",
    "$a_b$",
    "b\x9b1m.md",
)
NASTY = st.text(st.sampled_from("a[]/b \x1b\x9b\udce9\u202e\\"), min_size=1, max_size=12)


@given(st.text() | NASTY)
def test_printable_text_holds_no_command_and_stays_the_same(text: str) -> None:
    shown = printable(text)
    assert not CONTROL.search(shown.replace("\t", ""))
    assert printable(shown) == shown
    if not CONTROL.search(text.replace("\t", "")):
        assert shown == text


def console(**options: object) -> Console:
    return Console(file=io.StringIO(), width=400, **options)


def printed(screen: Console) -> str:
    assert isinstance(screen.file, io.StringIO)
    found = screen.file.getvalue()
    found.encode()
    return found


@given(NASTY)
def test_whatever_is_printed_is_shown_as_it_is(name: str) -> None:
    screen, table = console(), Table("text", title=name)
    table.add_row(name)
    table.add_row(Text(name))
    for what in (name, Text(name), table):
        screen.print(what, highlight=False)
    found = printed(screen)
    assert not CONTROL.search(found)
    assert found.count(printable(name).strip()) >= 5


@pytest.mark.parametrize("name", ODD)
def test_bars_and_waiting_show_names_and_keep_their_styles(name: str) -> None:
    screen = console(force_terminal=True, color_system="standard")
    with training_bar(screen, name[:18]):
        pass
    with screen.status(name):
        pass
    assert STYLE.search(printed(screen))
    assert printable(name[:18]) in STYLE.sub("", printed(screen))


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("model")
    blt.ByteLM(TINY).save(folder / "tiny")
    return str(folder / "tiny")


@pytest.mark.parametrize("name", ODD)
def test_odd_names_go_through_tables_json_figures_and_errors(
    tmp_path: Path,
    model: str,
    name: str,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    folder = tmp_path / f"folder {name}"
    path, dangling = str(folder / name), folder / f"dangling {name}"
    for parent in (Path(path).parent, dangling.parent):
        parent.mkdir(parents=True, exist_ok=True)
    Path(path).write_text("some text")
    os.symlink("nowhere", dangling)
    rest = ["--model", model]
    assert cli.main(["eval", "bpb", path, str(folder), *rest]) == 0
    assert cli.main(["eval", "bpb", path, "--json", *rest]) == 0
    out, err = capsys.readouterr()
    assert json.loads(out.splitlines()[-1])["text"] == path  # as it is
    draw([{"text": name, "bits_per_byte": 1.0}], ["bits_per_byte"], tmp_path / "a.png")
    assert cli.main(["eval", "bpb", f"{path}.none", *rest]) == 2
    out, err = out, err + capsys.readouterr().err
    assert printable(f"dangling {name}") in caplog.text
    assert printable(f"{name}.none") in err
    assert not CONTROL.search(out + err)


def test_a_text_that_standard_output_has_no_characters_for_is_shown_nevertheless(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    raw = io.BytesIO()
    monkeypatch.setattr("sys.stdout", io.TextIOWrapper(raw, encoding="ascii"))
    assert cli.main(["patch", "θ", "--rule", "space"]) == 0
    assert b"\\u03b8" in raw.getvalue()


def test_there_is_one_console() -> None:
    """Whoever takes rich's own prints names as commands and styles."""
    source = Path(blt.__file__).parent
    taken = [
        path.name for path in source.rglob("*.py") if "rich.console import" in path.read_text()
    ]
    assert taken == []


def test_warnings_are_printable(capsys: pytest.CaptureFixture[str]) -> None:
    cli.main(["--version"])
    cli.main(["patch", "a", "--rule", "byte"])
    record = logging.LogRecord("blt", 30, "", 0, "%s", ("x\x1b[31m",), None)
    assert logging.lastResort is not None
    assert logging.lastResort.format(record) == "x\\x1b[31m"


@pytest.mark.parametrize("error", [MemoryError(), RecursionError("too deep")])
def test_no_memory_and_no_stack_end_in_one_line(
    error: BaseException, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(_: object) -> int:
        raise error

    monkeypatch.setattr(command, "_run", fail)
    assert cli.main(["patch"]) == 2
    assert capsys.readouterr().err.count("\n") == 1
