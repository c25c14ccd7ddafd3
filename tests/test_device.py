"""Where models run: the option ``--device``, and what runs where it says."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch

import blt
from blt.cli.device import changes_for
from blt.files.configs import to_dict
from blt.train import read_recipe
from commands import fails

HERE = Path(__file__).parent


def test_all_that_runs_a_model_runs_where_the_model_is() -> None:
    """On a pretended GPU, which PyTorch believes in for the rest of the process."""
    command = [sys.executable, "-m", "pytest", "-q", "-n", "0", "-p", "no:cacheprovider"]
    done = subprocess.run(
        [*command, str(HERE / "on_gpu.py")], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-1000:]


VERBS = {
    "generate": ["x"],
    "chat": ["OUT"],
    "serve": [],
    "eval": ["utf8"],
    "prepare": ["FILE", "--out", "OUT"],
    "patch": ["x"],
    "demo": ["--pretrained"],
    "report": ["OUT"],
    "train": ["recipes/entropy-laptop.toml", "--run", "OUT"],
    "byteify": ["OUT", "recipes/byteify.toml", "--run", "OUT"],
    "study": ["FILE"],
}


@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.parametrize("device", ["cuda:7", "nonsense", "meta"])
def test_a_device_that_is_not_there_is_refused_by_the_name_of_the_option(
    verb: str, device: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text, out = tmp_path / "text.txt", tmp_path / "out"
    text.write_bytes(b"some text")
    args = [{"FILE": str(text), "OUT": str(out)}.get(word, word) for word in VERBS[verb]]
    message = fails(capsys, verb, *args, "--device", device)
    assert f"--device: '{device}' is not there" in message
    assert "try 'auto' or 'cpu'" in message
    assert not out.exists()


def test_a_program_names_the_device_when_it_loads() -> None:
    expected = "cuda" if torch.cuda.is_available() else "cpu"
    assert blt.load(device="auto").device.type == expected
    with pytest.raises(blt.UserError, match="device: 'nonsense' is not there"):
        blt.load(device="nonsense")


def test_the_option_changes_the_recipes_device() -> None:
    recipe = Path(__file__).parents[1] / "recipes" / "entropy-laptop.toml"
    assert changes_for(None) == ()
    assert to_dict(read_recipe(recipe, changes_for("cpu")))["train"]["device"] == "cpu"
