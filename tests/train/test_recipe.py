"""A recipe reads back as it was written, and every mistake in one names its file and key."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from blt.errors import UserError
from blt.train import read_recipe, write_recipe

SMALL = """
kind = "blt"
entropy_model = "pretrained"
[data]
sources = ["builtin:python"]
[train]
steps = 3
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    (tmp_path / "x.toml").write_text(SMALL)
    return tmp_path / "x.toml"


def test_a_written_recipe_reads_back_the_same(path: Path) -> None:
    recipe = read_recipe(path, ["model.patching.max_patch_length=8", "model.local_dim=128"])
    write_recipe(path, recipe)
    assert read_recipe(path) == recipe
    assert "weight_decay" in path.read_text()  # defaults are spelled out


def test_a_rule_without_entropies_needs_no_entropy_model(path: Path) -> None:
    path.write_text(SMALL.replace('entropy_model = "pretrained"', ""))
    for rule in ("space", "lookup"):
        recipe = read_recipe(path, [f"model.patching.rule={rule}"])
        assert recipe.model is not None
        assert recipe.model.entropy_model is None
        write_recipe(path, recipe)
        assert read_recipe(path) == recipe


RECIPES = Path(__file__).parents[2] / "recipes"


@pytest.mark.parametrize(
    "path", sorted([*RECIPES.glob("*.toml"), *RECIPES.glob("finetune/*.toml")]), ids=str
)
def test_shipped_recipes_are_valid(path: Path) -> None:
    read_recipe(path)


def test_the_rival_over_tokens_has_the_text_and_the_schedule_of_the_blt_beside_it() -> None:
    ours, rival = (
        read_recipe(RECIPES / f"{name}.toml") for name in ("blt-beside-bpe", "bpe-rival")
    )
    assert rival.data == ours.data
    assert rival.train == replace(ours.train, steps=None, flops=rival.train.flops)
    assert ours.model is not None
    assert rival.token_model is not None
    for name in ("hash_ngram_sizes", "hash_functions", "hash_rows"):
        assert getattr(rival.token_model, name) == getattr(ours.model, name)


def test_overrides_are_toml_values_and_strings_need_no_quotes(path: Path) -> None:
    overrides = ["train.lr=3e-4", 'data.sources=["a.txt", "b"]', "train.precision=float32"]
    recipe = read_recipe(path, overrides)
    assert recipe.train.lr == 3e-4
    assert recipe.data.sources == ("a.txt", "b")
    assert recipe.train.precision == "float32"


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("train.stepz=3", r"unknown key 'train\.stepz'; did you mean 'steps'"),
        ("modle.local_dim=3", r"unknown key 'modle'; did you mean 'model'"),
        ("model.patching.tresh=1", r"unknown key 'model\.patching\.tresh'"),
        ("train.lr=fast", r"train\.lr: .*'fast'"),
        ("train.steps=2.5", r"train\.steps"),
        ("train.steps=0", r"train\.steps must be positive"),
        ("train.lr=nan", r"train\.lr: must be a finite number"),
        ("train.lr=inf", r"train\.lr: must be a finite number"),
        ("train.betas=[0.9, 1.0]", r"train\.betas"),
        ("data.heldout=1.0", r"data\.heldout must be between"),
        ("data.sources=[]", r"data\.sources"),
        ("data.noise=1.5", r"data\.noise must be between 0 and 1"),
        ("data.noise=-0.1", r"data\.noise must be between 0 and 1"),
        ('data.noises=["drop"]', r"data\.noises: no 'drop'; did you mean 'Drop'"),
        ('data.noises=["Typos"]', r"data\.noises: no 'Typos'"),
        ('data.noises=["Drop", "Drop"]', r"'Drop' is named twice"),
        ('data.noises=["Drop"]', r"no text is disturbed; set data\.noise"),
        ("data.batch_bytes=1", r"data\.batch_bytes must be at least 2"),
        ("model.local_dim=33", r"local_dim 33 is not a multiple"),
        ("kind=bltt", "kind"),
        ("byte_model.dim=8", "byte_model"),
        ("kind=byte", "entropy_model"),
        ("target_patch_size=0.5", "target_patch_size"),
        ("seed=-1", "seed"),
        ("train", "section.key=value"),
        ("=3", "section.key=value"),
        ("seed.x.y=3", "'seed.x.y'|seed"),
    ],
)
def test_mistakes_name_file_and_key(path: Path, override: str, message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        read_recipe(path, [override])
    assert override in str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (SMALL.replace("[train]", "noise = 0.2\nnoises = []\n[train]"), "data.noises names none"),
        ("kind = ", "not valid TOML"),
        ("\xff", "not valid TOML"),
        ("", "kind"),
        (SMALL.replace("steps = 3", ""), "steps, epochs, bytes, seconds or flops"),
        (SMALL.replace('entropy_model = "pretrained"', ""), "needs one"),
    ],
)
def test_broken_files_are_named(path: Path, text: str, message: str) -> None:
    path.write_text(text, encoding="latin-1")
    with pytest.raises(UserError, match=message) as caught:
        read_recipe(path)
    assert str(path) in str(caught.value)


def test_a_missing_recipe_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"none\.toml: No such file"):
        read_recipe(tmp_path / "none.toml")
