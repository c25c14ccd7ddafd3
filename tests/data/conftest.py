"""Text to prepare, and an entropy model to cut it by."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import blt
from blt.model.config import ByteTransformerConfig
from prepared import write_lines

TINY = ByteTransformerConfig(dim=16, heads=2, layers=1, ff_dim=32, sliding_window=32)


@pytest.fixture
def sources(tmp_path: Path) -> tuple[str, ...]:
    """Three files of a few documents."""
    names = []
    for name in "abc":
        documents = [f"{name} {n} " + "text ü " * n for n in range(12)]
        names.append(write_lines(tmp_path / f"{name}.jsonl", documents))
    return tuple(names)


@pytest.fixture
def entropy_folder(tmp_path: Path) -> str:
    torch.manual_seed(0)
    blt.ByteLM(TINY).save(tmp_path / "entropy")
    return str(tmp_path / "entropy")
