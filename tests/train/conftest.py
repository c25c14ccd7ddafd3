"""A tiny corpus and recipes over it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch
import torch._dynamo as dynamo

from blt.model import compiling
from blt.model.config import TokenTransformerConfig
from blt.patching import PatchingConfig
from blt.train import DataConfig, Recipe, TrainConfig, read_recipe, train_recipe
from once import once
from shapes import TINY, TINY_BLT


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> DataConfig:
    text = "".join(f"{n} bottles of beer on the wall, " for n in range(400))
    corpus = once(tmp_path_factory, "corpus", lambda to: (to / "text.txt").write_text(text))
    return DataConfig((str(corpus / "text.txt"),), context_bytes=100, batch_bytes=256)


@pytest.fixture(scope="session")
def train() -> TrainConfig:
    return TrainConfig(steps=8, lr=1e-2, precision="float32", eval_bytes=300, evals=2)


@pytest.fixture(scope="session")
def byte_recipe(data: DataConfig, train: TrainConfig) -> Recipe:
    return Recipe("byte", data, train, byte_model=TINY)


@pytest.fixture(scope="session")
def token_recipe(data: DataConfig, train: TrainConfig) -> Recipe:
    shape = TokenTransformerConfig(vocab_size=300, dim=16, heads=2, layers=1, ff_dim=32)
    return Recipe("token", data, train, token_model=shape)


@pytest.fixture(scope="session")
def entropy_folder(byte_recipe: Recipe, tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = once(tmp_path_factory, "entropy", lambda to: train_recipe(byte_recipe, to / "run"))
    return made / "run" / "checkpoint"


@pytest.fixture(scope="session")
def blt_recipe(data: DataConfig, train: TrainConfig, entropy_folder: Path) -> Recipe:
    return Recipe("blt", data, train, model=TINY_BLT, entropy_model=str(entropy_folder))


@pytest.fixture
def without_a_compiler(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """What is compiled is traced, its backward pass too, and then runs as PyTorch runs it."""
    traced = {"dynamic": True, "backend": "aot_eager"}
    monkeypatch.setattr(compiling, "compiled", partial(torch.compile, **traced))
    dynamo.reset()
    yield
    dynamo.reset()


@pytest.fixture
def lookup_recipe(blt_recipe: Recipe) -> Recipe:
    """A BLT whose table is made from counts."""
    assert blt_recipe.model is not None
    model = replace(blt_recipe.model, patching=PatchingConfig("lookup"), entropy_model=None)
    return replace(blt_recipe, model=model, entropy_model=None, target_patch_size=3.0)


@pytest.fixture(scope="session")
def runs(
    blt_recipe: Recipe,
    byte_recipe: Recipe,
    token_recipe: Recipe,
    tmp_path_factory: pytest.TempPathFactory,
) -> dict[str, Path]:
    """A run of each kind."""
    recipes = {"blt": blt_recipe, "byte": byte_recipe, "token": token_recipe}

    def train(folder: Path) -> None:
        for kind, recipe in recipes.items():
            train_recipe(recipe, folder / kind)

    made = once(tmp_path_factory, "runs", train)
    return {kind: made / kind for kind in recipes}


@pytest.fixture
def from_file(blt_recipe: Recipe, tmp_path: Path) -> Callable[..., Recipe]:
    """Reads a recipe that begins from a model, with more lines and changes."""

    def read(kind: str, init: Path | str, more: str = "", *changes: str) -> Recipe:
        (source,) = blt_recipe.data.sources
        path = tmp_path / "recipe.toml"
        path.write_text(
            f'kind = "{kind}"\ninit = {json.dumps(str(init))}\n'
            f"[data]\nsources = [{json.dumps(source)}]\ncontext_bytes = 100\nbatch_bytes = 256\n"
            f'[train]\nsteps = 0\nprecision = "float32"\neval_bytes = 300\nevals = 1\n{more}'
        )
        return read_recipe(path, changes)

    return read
