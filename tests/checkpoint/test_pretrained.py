"""The models inside the package work as they come out of it."""

from __future__ import annotations

from pathlib import Path

import pytest

import blt
from blt import cli
from blt.checkpoint.convert import convert
from checkpoints import equal_weights

PROSE = (
    b"It was a cold morning in November, and the old man had gone down to the river to look "
    b"for his boat. He did not find it where he had left it the evening before."
)


def test_the_blt_in_the_package_knows_english_and_python() -> None:
    lm = blt.load()
    assert isinstance(lm, blt.BLT)
    assert lm.bits_per_byte(PROSE) < 2.0
    assert lm.bits_per_byte("import os\n\n\ndef main():\n    return None\n") < 2.0
    assert 3 < lm.patch(PROSE).mean_size < 7


def test_the_model_in_the_package_is_the_same_in_shards(tmp_path: Path) -> None:
    convert("pretrained", tmp_path / "out", shard_bytes=10**7)
    assert len(list((tmp_path / "out").glob("model-*-of-*.safetensors"))) > 1
    lm, again = blt.load(), blt.load(tmp_path / "out")
    assert again.config == lm.config
    assert equal_weights(again, lm)


def test_generate_and_demo_need_no_model_of_the_user(
    capsys: pytest.CaptureFixture[str], tmp_path_factory: pytest.TempPathFactory
) -> None:
    assert cli.main(["generate", "The old man ", "--max-bytes", "20"]) == 0
    assert capsys.readouterr().out.strip()
    text = tmp_path_factory.mktemp("text") / "prose.txt"
    text.write_bytes(PROSE)
    assert cli.main(["demo", "--pretrained", "--text", str(text)]) == 0
    shown = capsys.readouterr().out
    for part in ("the BLT in the package", "xz -9", "│"):
        assert part in shown
    assert cli.main(["demo", "--pretrained", "--run", "x"]) == 2
