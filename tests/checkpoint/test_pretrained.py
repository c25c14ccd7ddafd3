"""The models inside the package work as they come out of it."""

from __future__ import annotations

import pytest

import blt
from blt import cli

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
