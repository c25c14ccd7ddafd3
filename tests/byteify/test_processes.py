"""Several processes byteify as one does."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from blt.train import Recipe
from metrics import reports
from processes import train, write


def test_two_processes_byteify_as_one_does_in_both_stages(recipe: Recipe, tmp_path: Path) -> None:
    assert recipe.byteify is not None
    recipe = replace(recipe, byteify=replace(recipe.byteify, distill=0.5))
    changes: dict[str, Any] = {"steps": 12, "lr": 2e-3}
    train(write(recipe, tmp_path / "1.toml", **changes, accumulate=2), tmp_path / "one")
    train(write(recipe, tmp_path / "2.toml", **changes), tmp_path / "two", processes=2)
    for a, b in zip(reports(tmp_path / "one"), reports(tmp_path / "two"), strict=True):
        assert b["bits_per_byte"] == pytest.approx(a["bits_per_byte"], rel=1e-5)
        assert b["grad_norm"] == pytest.approx(a["grad_norm"], rel=1e-3)
        assert b["flops"] == pytest.approx(a["flops"])
