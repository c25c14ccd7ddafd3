"""The command line itself: its help, its exit statuses, and how soon it answers."""

from __future__ import annotations

import inspect
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

import blt
from blt import cli
from blt.cli import command
from blt.cli.verbs import VERBS, find
from commands import fails


def test_help_and_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["--version"]) == 0
    assert capsys.readouterr().out == f"blt {blt.__version__}\n"
    for args in ([], ["--help"], *([verb, "--help"] for verb in VERBS)):
        assert cli.main(args) == 0
        assert "usage: blt" in capsys.readouterr().out


def test_wrong_arguments_end_in_2(capsys: pytest.CaptureFixture[str]) -> None:
    for args in (["nonsense"], ["patch", "x", "--nonsense"], ["patch", "--stride", "x"], ["train"]):
        assert cli.main(args) == 2


def test_changes_to_a_recipe_may_stand_anywhere(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """Also where a folder's name looks like one, as an option's value."""
    recipe = "recipes/entropy-laptop.toml"
    run = ["--run", str(tmp_path / "a=b"), f"--run={tmp_path}/c=d"]
    for args in (
        ["train", recipe, "train.steps=3", run[0], run[1], "seed=-1"],
        ["train", recipe, run[2], "train.steps=3", "--resume", "seed=-1"],
        ["plan", "train.steps=3", recipe, "--json", "seed=-1"],
    ):
        assert cli.main(args) == 2
        assert "seed must lie in 0..2^63 - 1" in capsys.readouterr().err


def test_byteify_recipe_without_a_source_names_the_verb(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert cli.main(["train", "recipes/byteify.toml", "--run", str(tmp_path / "run")]) == 2
    assert "`blt byteify SOURCE RECIPE --run FOLDER`" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("asked", "spared"), [([], ("torch", "tyro", "rich")), (VERBS, ("torch",))]
)
def test_help_does_not_wait_for_what_it_does_not_need(
    asked: list[str], spared: tuple[str, ...]
) -> None:
    code = f"""import sys, blt.cli
for args in {[[verb, "--help"] for verb in asked] or [["--help"]]}:
    assert blt.cli.main(args) == 0
assert not {set(spared)} & set(sys.modules)"""
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


def test_the_overview_has_the_first_line_of_each_verbs_own_help(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert cli.main([]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    for verb, line in VERBS.items():
        assert (inspect.getdoc(find(verb)) or "").splitlines()[0] == line
        assert f" {verb} {line}" in shown


def test_an_unknown_verb_is_told_the_nearest(capsys: pytest.CaptureFixture[str]) -> None:
    assert "did you mean 'patch'" in fails(capsys, "patc", "some text")
    assert "lm-eval" in fails(capsys, "--nonsense")


@pytest.mark.parametrize("said", ["stopped; the last checkpoint is runs/x/checkpoint", ""])
def test_interrupt_ends_in_130(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], said: str
) -> None:
    def interrupted(_: list[str]) -> int:
        raise KeyboardInterrupt(*filter(None, [said]))

    monkeypatch.setattr(command, "_run", interrupted)
    assert cli.main(["demo"]) == 130
    assert capsys.readouterr().err == f"blt: {said or 'interrupted'}\n"


def run_out() -> None:
    torch.empty(2**55)


def run_out_on_a_gpu() -> None:
    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB. GPU 0 has ...")


def run_out_of_python_s() -> None:
    raise MemoryError


@pytest.mark.parametrize("out", [run_out, run_out_on_a_gpu, run_out_of_python_s])
@pytest.mark.parametrize(
    ("verb", "helps"), [("train", "data.batch_bytes"), ("generate", "give it less at once")]
)
def test_running_out_of_memory_is_one_line_with_what_helps(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    out: Callable[[], None],
    verb: str,
    helps: str,
) -> None:
    monkeypatch.setattr(command, "_run", lambda _: out())
    said = fails(capsys, verb)
    assert said.startswith("blt: out of memory; ")
    assert helps in said
    assert "or a larger machine" in said


def test_a_mistake_of_the_program_keeps_its_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    def mistaken(_: list[str]) -> int:
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")

    monkeypatch.setattr(command, "_run", mistaken)
    with pytest.raises(RuntimeError, match="mat1 and mat2"):
        cli.main(["train"])
