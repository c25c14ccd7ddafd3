"""A byte model and a BLT in folders, for verbs that read one."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import blt
from blt.checkpoint import pretrained
from shapes import TINY, TINY_BLT


@pytest.fixture(scope="session")
def byte_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models") / "byte"
    blt.ByteLM(TINY).save(folder)
    pretrained.save_patching(folder, blt.PatchingConfig(threshold=5.2))
    return folder


@pytest.fixture(scope="session")
def blt_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models") / "blt"
    torch.manual_seed(0)
    blt.BLT(TINY_BLT).save(folder)
    return folder
