"""A tiny corpus, a token model that has learned it, and a recipe that byteifies that."""

from __future__ import annotations

from pathlib import Path

import pytest

from blt.patching import PatchingConfig
from blt.train import DataConfig, Recipe, TrainConfig, train_recipe
from blt.train.sections import ByteifyConfig
from shapes import TOKEN_SHAPE, tiny_config


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> DataConfig:
    folder = tmp_path_factory.mktemp("corpus")
    for n in range(20):
        lines = (f"{n * m} bottles of beer on the wall, " for m in range(40))
        (folder / f"{n}.txt").write_text("".join(lines))
    return DataConfig((str(folder),), heldout=0.2, context_bytes=120, batch_bytes=512)


@pytest.fixture(scope="session")
def train() -> TrainConfig:
    return TrainConfig(
        steps=10, lr=5e-3, precision="float32", eval_bytes=600, evals=2, sample_prompts=()
    )


@pytest.fixture(scope="session")
def token_run(
    data: DataConfig, train: TrainConfig, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    run = tmp_path_factory.mktemp("token") / "run"
    train_recipe(Recipe("token", data, train, token_model=TOKEN_SHAPE), run)
    return run / "checkpoint"


@pytest.fixture(scope="session")
def recipe(data: DataConfig, train: TrainConfig, token_run: Path) -> Recipe:
    model = tiny_config(
        local_dim=24,
        hash_ngram_sizes=(2, 3, 4, 5),
        patching=PatchingConfig(rule="space"),
        entropy_model=None,
    )
    return Recipe(
        "blt", data, train, model=model, byteify=ByteifyConfig(str(token_run), frozen=0.5)
    )
