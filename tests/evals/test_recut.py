"""θ at use: patches are those of a patcher with that θ, and what it costs stands beside."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import blt
from blt import cli
from blt.errors import UserError
from blt.evals.recut import recut
from blt.lm import load
from blt.patching import Patcher, PatchingConfig
from blt.serve.settings import Settings
from shapes import TINY, random_blt

TEXT = "The old man reads 8 bytes, then 16 more; und ein Wort über die Straße. " * 6


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A model whose entropies differ from byte to byte."""
    random_blt().save(tmp_path / "model")
    (tmp_path / "text.txt").write_text(TEXT)
    return tmp_path / "model"


def lengths(model: blt.BLT, threshold: float) -> list[int]:
    """Of the patches of a patcher with that θ."""
    config = replace(model.config.patching, threshold=threshold)
    return Patcher(config, model.entropy_model).cut(TEXT.encode()).lengths


def test_a_threshold_that_is_set_cuts_scores_and_is_saved(folder: Path, tmp_path: Path) -> None:
    lm = load(folder)
    assert isinstance(lm, blt.BLT)
    own, other = lm.threshold, lm.patcher.calibrated([TEXT.encode()], 3.0).config.threshold
    lm.threshold = other
    found = lm.patch(TEXT).lengths[1:].tolist()
    assert found == lengths(lm, other) != lengths(lm, own)
    assert lm.bits_per_byte(TEXT) != load(folder).bits_per_byte(TEXT)
    lm.save(tmp_path / "other")
    again = load(tmp_path / "other")
    assert again.threshold == other
    assert again.bits_per_byte(TEXT) == lm.bits_per_byte(TEXT)


def test_a_size_is_calibrated_on_text(folder: Path) -> None:
    lm = load(folder)
    assert isinstance(lm, blt.BLT)
    expected = lm.patcher.calibrated([TEXT.encode()], 3.0).config
    assert lm.calibrate([TEXT], 3.0) == lm.threshold == expected.threshold
    assert lm.config.patching == expected
    other = load(folder)
    recut(other, None, 3.0, folder.parent / "text.txt")
    assert other.threshold == expected.threshold


@pytest.mark.parametrize("rule", ["static", "space", "byte", "lookup"])
def test_a_rule_without_a_threshold_refuses_and_is_named(rule: str) -> None:
    lm = random_blt(rule)
    for change in (lambda: setattr(lm, "threshold", 1.0), lambda: lm.calibrate([TEXT], 3.0)):
        with pytest.raises(UserError, match=f"not '{rule}'"):
            change()
    with pytest.raises(UserError, match="a byte model has no patches"):
        recut(blt.ByteLM(TINY), 1.0, None, None)


def test_what_is_written_is_cut_with_it(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lm = load(folder)
    assert isinstance(lm, blt.BLT)
    common = ["generate", TEXT, "--model", str(folder), "--json", "--max-bytes", "12"]
    for options, theta in (
        ([], lm.threshold),
        (["--threshold", "4.5"], 4.5),
        (
            ["--target-patch-size", "3", "--calibrate-on", str(folder.parent / "text.txt")],
            lm.patcher.calibrated([TEXT.encode()], 3.0).config.threshold,
        ),
    ):
        assert cli.main([*common, "--temperature", "0", *options]) == 0
        found = json.loads(capsys.readouterr().out)
        mine = load(folder)
        mine.threshold = theta
        expected = mine.generate(TEXT, max_bytes=12, valid_utf8=True)
        assert found["text"] == expected.text
        assert found["patch_lengths"] == [len(patch) for patch in expected.patches]


def test_eval_shows_what_it_costs_beside_the_models_own(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = str(folder.parent / "text.txt")
    lm = load(folder)
    assert isinstance(lm, blt.BLT)
    own = lm.threshold
    command = ["eval", "bpb", text, "--model", str(folder), "--json", "--target-patch-size", "3"]
    assert cli.main(command) == 0
    first, second = map(json.loads, capsys.readouterr().out.splitlines())
    assert first["bits_per_byte"] == pytest.approx(lm.bits_per_byte(TEXT), rel=1e-6)
    lm.calibrate([TEXT], 3.0)
    assert second["bits_per_byte"] == pytest.approx(lm.bits_per_byte(TEXT), rel=1e-6)
    assert second["bytes_per_patch"] == pytest.approx(lm.patcher.mean_patch_size([TEXT.encode()]))
    assert first["model"] == f"model, θ = {own:.4f}"
    assert second["model"] == f"model, θ = {lm.threshold:.4f}"
    command = ["eval", "bpb", text, "--model", str(folder), "--json", "--threshold", str(own)]
    assert cli.main(command) == 0
    first, second = map(json.loads, capsys.readouterr().out.splitlines())
    assert first["bits_per_byte"] == second["bits_per_byte"]


def test_mistakes_are_one_line(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text, model = str(folder.parent / "text.txt"), ["--model", str(folder)]
    random_blt("space").save(folder.parent / "space")
    for command, message in (
        (["generate", "a", *model, "--target-patch-size", "3"], "with --calibrate-on FILE"),
        (["generate", "a", *model, "--calibrate-on", text], "to what size"),
        (
            ["generate", "a", *model, "--threshold", "1", "--target-patch-size", "3"],
            "choose one",
        ),
        (["generate", "a", *model, "--threshold", "1e9"], "threshold must be"),
        (["eval", "bpb", text, *model, "--target-patch-size", "0.5"], "at least 1 byte"),
        (["eval", "utf8", *model, "--target-patch-size", "3"], "means nothing for utf8"),
        (
            ["eval", "bpb", text, "--model", str(folder.parent / "space"), "--threshold", "1"],
            "not 'space'",
        ),
    ):
        assert cli.main(command) == 2
        err = capsys.readouterr().err
        assert message in err
        assert err.count("\n") == 1


def test_a_server_is_told_its_threshold(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[blt.BLT] = []
    import blt.serve.run as run

    def stop(model: blt.BLT, _: Settings) -> None:
        given.append(model)
        raise UserError("far enough")

    monkeypatch.setattr(run, "create_app", stop)
    settings = Settings(
        str(folder), target_patch_size=3.0, calibrate_on=str(folder.parent / "text.txt")
    )
    with pytest.raises(UserError, match="far enough"):
        run.serve(settings, "127.0.0.1", 0)
    expected = load(folder)
    assert given[0].threshold == expected.calibrate([TEXT], 3.0)
    with pytest.raises(UserError, match="--calibrate-on FILE"):
        run.serve(Settings(str(folder), target_patch_size=3.0), "127.0.0.1", 0)


def test_entropies_with_a_threshold_are_of_the_same_model(folder: Path) -> None:
    """θ moves boundaries alone."""
    lm = load(folder)
    assert isinstance(lm, blt.BLT)
    before = lm.patch(TEXT).entropies
    lm.threshold = 0.5
    assert before is not None
    assert torch.equal(before, lm.patch(TEXT).entropies)  # type: ignore[arg-type]
    assert PatchingConfig(threshold=0.5).threshold == lm.threshold
