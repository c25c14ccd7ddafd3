"""Hash n-gram tables of models without patches train as those of a BLT do."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

import blt
from blt.model.embedding import NgramTables
from blt.train import Recipe, Report, train_recipe
from blt.train.optim import RowwiseAdam, optimizers
from metrics import reports
from processes import train, write

TABLES: dict[str, Any] = {"hash_ngram_sizes": (2, 4), "hash_rows": 97}
OF_BYTES: dict[str, Any] = {**TABLES, "hash_of": "bytes", "hash_fold": ("case", "repeats")}

GATED: dict[str, Any] = {**TABLES, "hash_gate": True, "hash_dim": 12}


@pytest.fixture(params=["byte", "byte gated", "token", "token bytes"])
def recipe(request: pytest.FixtureRequest, byte_recipe: Recipe, token_recipe: Recipe) -> Recipe:
    if "byte" in request.param.split():
        assert byte_recipe.byte_model is not None
        tables = GATED if "gated" in request.param else TABLES
        return replace(byte_recipe, byte_model=replace(byte_recipe.byte_model, **tables))
    assert token_recipe.token_model is not None
    tables = OF_BYTES if "bytes" in request.param else TABLES
    return replace(token_recipe, token_model=replace(token_recipe.token_model, **tables))


def table_of(model: torch.nn.Module) -> torch.Tensor:
    (table,) = [m.ngram for m in model.modules() if isinstance(m, NgramTables)]
    return table.detach()


def test_tables_begin_at_zero_learn_and_go_on_exactly_from_a_checkpoint(
    recipe: Recipe, tmp_path: Path
) -> None:
    whole = table_of(train_recipe(recipe, tmp_path / "whole"))
    used = whole.count_nonzero(dim=1) > 0
    assert 0 < used.sum() < len(used)  # rows of n-grams of the text, and they alone

    def interrupt(report: Report) -> None:
        if report.step == 3:
            raise KeyboardInterrupt

    often = replace(recipe, train=replace(recipe.train, checkpoint_every_seconds=1e-9))
    with pytest.raises(KeyboardInterrupt):
        train_recipe(often, tmp_path / "cut", on_progress=interrupt)
    train_recipe(often, tmp_path / "cut", resume=True)
    assert torch.equal(table_of(blt.load(tmp_path / "cut" / "checkpoint")), whole)


def test_only_tables_that_are_trained_have_a_rowwise_optimizer(recipe: Recipe) -> None:
    shape = recipe.byte_model
    if shape is None:
        pytest.skip("no entropy model")
    model = blt.BLT(blt.Config(hash_rows=50, entropy_model=shape))
    tables = [
        table
        for optimizer in optimizers(model, 1e-3, (0.9, 0.95), 0.1)
        if isinstance(optimizer, RowwiseAdam)
        for group in optimizer.param_groups
        for table in group["params"]
    ]
    assert [len(table) for table in tables] == [300]  # the entropy model's is frozen
    alone = blt.lm.ByteLM(shape)
    found = optimizers(alone, 1e-3, (0.9, 0.95), 0.1)
    assert alone.tables is not None
    assert alone.tables.sparse_gradients
    assert isinstance(found[-1], RowwiseAdam)


def test_two_processes_train_tables_as_one_does(recipe: Recipe, tmp_path: Path) -> None:
    if recipe.kind == "token":
        pytest.skip("the byte transformer's are divided alike")
    train(write(recipe, tmp_path / "1.toml", steps=10, accumulate=2), tmp_path / "one")
    train(write(recipe, tmp_path / "2.toml", steps=10, accumulate=1), tmp_path / "two", processes=2)
    one, two = reports(tmp_path / "one"), reports(tmp_path / "two")
    for a, b in zip(one, two, strict=True):
        assert b["bits_per_byte"] == pytest.approx(a["bits_per_byte"], rel=1e-5)


def test_compiling_changes_no_loss_of_tables(recipe: Recipe, tmp_path: Path) -> None:
    if recipe.kind == "byte":
        compiled = replace(recipe, train=replace(recipe.train, compile=True))
        train_recipe(recipe, tmp_path / "plain")
        train_recipe(compiled, tmp_path / "compiled")
        a, b = (
            blt.load(tmp_path / name / "checkpoint").bits_per_byte("12 bottles of beer")
            for name in ("plain", "compiled")
        )
        assert b == pytest.approx(a, rel=1e-3)


def test_an_entropy_model_with_tables_cuts_for_a_blt(
    recipe: Recipe, blt_recipe: Recipe, tmp_path: Path
) -> None:
    if recipe.kind == "byte":
        train_recipe(recipe, tmp_path / "entropy")
        folder = str(tmp_path / "entropy" / "checkpoint")
        model = train_recipe(replace(blt_recipe, entropy_model=folder), tmp_path / "run")
        assert isinstance(model, blt.BLT)
        assert model.entropy_model is not None
        wanted = table_of(blt.load(folder))
        tables = model.entropy_model.tables
        assert tables is not None
        assert torch.equal(tables.ngram, wanted)
        assert not tables.ngram.requires_grad
