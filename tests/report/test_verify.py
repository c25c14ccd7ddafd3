"""What is read is what was saved: flipped bits and weights that are no numbers are named."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

import blt
from blt.cli import main
from blt.data.prepare import Options, prepare
from blt.data.shards import ShardSegments
from blt.errors import UserError
from blt.files import checksums
from blt.train.recipe import read_recipe
from blt.train.state import TrainerValues
from shapes import TINY, TINY_BLT

GOOD = {
    "step": 2,
    "bytes_seen": 9,
    "skipped": 0,
    "skipped_in_a_row": 0,
    "usual_norm": 1.0,
    "documents": "x",
    "seconds": 1.0,
    "evals_done": 0,
    "tensors": ["rng"],
    "loader": {"seed": 0, "sources": [{"epoch": 0, "index": 0, "offset": 0, "given": 0}]},
}
WRONG = (None, [], "x", -1, 1e30, float("nan"), True, {"a": {}}, 10**30)


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-2] ^= 4
    path.write_bytes(data)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    blt.ByteLM(TINY).save(tmp_path / "m")
    return tmp_path / "m"


def test_a_flipped_bit_names_file_tensor_and_way_out(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["verify", str(folder)]) == 0
    flip(folder / "model.safetensors")
    with pytest.raises(UserError, match=r"model\.safetensors: damaged.*tensor '.*delete .*checks"):
        blt.load(folder)
    assert main(["verify", str(folder)]) == 1
    assert "in tensor" in capsys.readouterr().out
    (folder / checksums.CHECKSUMS).unlink()
    blt.load(folder)  # as another program's


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_weights_that_are_no_numbers_are_refused(
    folder: Path, value: float, capsys: pytest.CaptureFixture[str]
) -> None:
    model = blt.load(folder)
    with torch.no_grad():
        model.head.weight[3, 2] = value
    model.save(folder)
    with pytest.raises(UserError, match=r"model\.safetensors: tensor 'head\.weight'.*finite"):
        blt.load(folder)
    assert main(["verify", str(folder)]) == 1
    assert "head.weight" in capsys.readouterr().out


def test_flipped_bits_of_prepared_text_are_not_trained_on(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(bytes(range(256)) * 20)
    out = tmp_path / "out"
    prepare(out, Options((str(tmp_path / "a.txt"),), heldout=0.0))
    assert main(["verify", str(out)]) == 0
    path = next(out.glob("units/*/train*.arrow"))
    whole = path.read_bytes()
    data = bytearray(whole)
    data[whole.index(bytes(range(256))) + 7] ^= 1
    path.write_bytes(data)
    with pytest.raises(UserError, match="another SHA-256"):
        ShardSegments(out).read(0, 0, 1)
    assert main(["verify", str(out)]) == 1
    path.write_bytes(whole)
    flip(out / "train.lengths")
    with pytest.raises(UserError, match=r"train\.lengths.*another SHA-256"):
        ShardSegments(out)


@pytest.mark.parametrize("key", [*GOOD])
def test_no_value_of_trainer_json_of_a_wrong_kind_is_taken(key: str) -> None:
    TrainerValues.check(GOOD, "x")
    allowed = {"documents": ("x",), "usual_norm": (1e30, 10**30), "seconds": (1e30, 10**30)}
    for wrong in WRONG:
        if wrong not in allowed.get(key, ()):
            with pytest.raises(UserError, match=r"^x: "):
                TrainerValues.check(GOOD | {key: wrong}, "x")


def test_no_value_of_a_manifest_of_a_wrong_kind_is_taken(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(b"text")
    out = tmp_path / "out"
    prepare(out, Options((str(tmp_path / "a.txt"),), heldout=0.0))
    good = json.loads((out / "manifest.json").read_text())
    for key in good:
        for wrong in ("x", -1, 1e30, True, {"a": {}}):
            (out / "manifest.json").write_text(json.dumps(good | {key: wrong}))
            with pytest.raises(UserError, match=r"manifest\.json"):
                ShardSegments(out)


@pytest.mark.parametrize(("rule", "option"), [("space", "stride"), ("static", "threshold")])
def test_an_option_that_a_rule_does_not_use_is_refused(
    rule: str, option: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["patch", "text", "--rule", rule, f"--{option}", "3"]) == 2
    assert f"{option}: does nothing for rule '{rule}'" in capsys.readouterr().err


def test_the_folder_of_a_run_stands_for_its_model(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run = folder.parent / "run"
    run.mkdir()
    folder.rename(run / "checkpoint")
    assert blt.load(run).kind == "byte"
    assert "is a run; its model is taken" in caplog.text


def test_a_key_without_its_section_is_recognised(tmp_path: Path) -> None:
    (tmp_path / "x.toml").write_text('kind = "byte"\n')
    with pytest.raises(UserError, match=r"did you mean 'train\.seconds'"):
        read_recipe(tmp_path / "x.toml", ["seconds=60"])


def _keys(data: dict[str, Any], before: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    inner = [_keys(value, (*before, k)) for k, value in data.items() if isinstance(value, dict)]
    return [(*before, key) for key in data] + [path for paths in inner for path in paths]


def test_no_value_of_a_config_gives_a_traceback_or_nonsense(tmp_path: Path) -> None:
    blt.BLT(TINY_BLT).save(tmp_path / "m")
    (tmp_path / "m" / checksums.CHECKSUMS).unlink()  # what is meant is the schema alone
    path = tmp_path / "m" / "config.json"
    good = path.read_text()
    for keys in _keys(json.loads(good)):
        for wrong in (None, [], [[]], "x", -1, 0, 1e30, 10**30, float("nan"), True, {"a": {}}):
            data = json.loads(good)
            inner = data
            for key in keys[:-1]:
                inner = inner[key]
            inner[keys[-1]] = wrong
            path.write_text(json.dumps(data))
            try:
                logits = blt.load(tmp_path / "m").logits(blt.encode("some text"))
            except UserError:
                continue
            assert logits.isfinite().all(), (keys, wrong)
