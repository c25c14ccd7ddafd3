"""The demo in miniature, end to end, and what an interruption leaves."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import blt
from blt import cli
from blt.checkpoint.pretrained import load_shipped
from blt.demo import recipes
from blt.demo.run import _Demo
from blt.train.recipe import read_recipe
from metrics import events, reports
from shapes import TINY, TINY_BLT
from texts import write_documents


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_documents(tmp_path_factory.mktemp("text"))


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recipes, "ENTROPY_MODEL", TINY)
    monkeypatch.setattr(recipes, "MODEL", TINY_BLT)
    monkeypatch.setattr(recipes, "BASELINE", TINY)


@pytest.mark.usefixtures("tiny")
def test_demo_leaves_everything_it_promises(
    tmp_path: Path, text: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "run"
    args = ["demo", "--text", str(text), "--run", str(folder), "--minutes", "0.1"]
    assert cli.main(args) == 0
    out = capsys.readouterr().out
    for part in ("θ = ", "bits per byte", "gzip -9", "bzip2 -9", "xz -9", "blt generate", "│"):
        assert part in out
    model = blt.load(folder / "checkpoint")
    assert isinstance(model, blt.BLT)
    assert isinstance(blt.load(folder / "entropy_model" / "checkpoint"), blt.ByteLM)
    assert torch.isfinite(model.logits(blt.encode("abc"))).all()
    recipe = read_recipe(folder / "recipe.toml")
    assert recipe.model is not None
    assert recipe.model.patching == model.config.patching
    (scores,) = events(folder, "scores")
    assert {"BLT", "byte transformer", "xz -9"} <= scores["bits_per_byte"].keys()
    assert reports(folder)
    assert (folder / "samples.txt").stat().st_size > 0
    assert "<svg" in (folder / "report.html").read_text()
    # A second demo never writes into the first one's folder.
    assert cli.main(args) == 2
    assert "holds a run already" in capsys.readouterr().err


@pytest.mark.usefixtures("tiny")
def test_the_entropy_model_in_the_package_may_cut(tmp_path: Path, text: Path) -> None:
    folder = tmp_path / "run"
    args = ["demo", "--text", str(text), "--run", str(folder), "--minutes", "0.1"]
    assert cli.main([*args, "--entropy-model", "pretrained"]) == 0
    assert not (folder / "entropy_model").exists()
    assert read_recipe(folder / "recipe.toml").entropy_model == "pretrained"
    model, theirs = blt.load(folder / "checkpoint"), load_shipped().entropy_model
    assert isinstance(model, blt.BLT)
    assert model.entropy_model is not None
    assert theirs is not None
    weights = model.entropy_model.state_dict()
    assert all(torch.equal(weights[name], value) for name, value in theirs.state_dict().items())


def test_the_baseline_has_the_tables_of_the_blt_and_its_time() -> None:
    for name in ("hash_ngram_sizes", "hash_functions", "hash_rows"):
        assert getattr(recipes.BASELINE, name) == getattr(recipes.MODEL, name)
    for entropy_model in (None, "pretrained"):
        plan = recipes.Plan(None, Path("run"), 1.0, 4.5, 0, "cpu", entropy_model)
        own = recipes.ENTROPY_SHARE if entropy_model is None else 0.0
        assert own + 2 * plan.blt_share == pytest.approx(0.81)  # the rest is for scores


def test_bad_numbers_and_text(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = tmp_path / "run"
    empty = tmp_path / "empty"
    empty.write_bytes(b"")
    for args, message in (
        (["--minutes", "0"], "--minutes"),
        (["--patch-size", "0.5"], "--patch-size"),
        (["--text", str(tmp_path / "missing")], "missing: no such file"),
        (["--text", str(empty)], "empty: no text"),
        (["--entropy-model", str(tmp_path / "none")], "none: no such folder"),
        (["--pretrained", "--entropy-model", "pretrained"], "it has no --entropy-model"),
        (["--pretrained", "--minutes", "9"], "it has no --minutes"),
        (["--pretrained", "--patch-size", "4.5"], "it has no --patch-size"),
    ):
        to = [] if "--pretrained" in args else ["--run", str(run)]
        assert cli.main(["demo", *to, *args]) == 2
        assert message in capsys.readouterr().err
        assert not run.exists()


@pytest.mark.usefixtures("tiny")
def test_interrupt_tells_where_the_checkpoint_is(
    tmp_path: Path,
    text: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(_Demo, "score", interrupted)
    folder = tmp_path / "run"
    args = ["demo", "--text", str(text), "--run", str(folder), "--minutes", "0.03"]
    assert cli.main(args) == 130
    err = capsys.readouterr().err
    assert str(folder / "checkpoint") in err
    assert err.count("\n") == 1
    assert isinstance(blt.load(folder / "checkpoint"), blt.BLT)
    # What the message says works.
    command = ["train", str(folder / "recipe.toml"), "train.seconds=4"]
    assert cli.main([*command, "--run", str(folder), "--resume"]) == 0
