"""A plan follows the recipe, the model and the hardware, and takes no memory."""

from __future__ import annotations

import json
from dataclasses import astuple, replace
from pathlib import Path

import pytest

import blt
from blt.cli import main
from blt.errors import UserError
from blt.machine.shares import expected_share
from blt.patching import PatchingConfig
from blt.plan import find_hardware, make_plan
from blt.plan.memory import meta_model
from blt.plan.plan import parameters
from blt.train import DataConfig, Recipe, TrainConfig, read_recipe, write_recipe
from blt.train.sections import LoraConfig
from commands import fails
from shapes import TINY, tiny_config

PAPER = Path(__file__).parents[2] / "recipes" / "paper"


@pytest.mark.parametrize(
    ("name", "encoder_ff_dim", "total"),
    [("1b", 2816, 4_533_879_808), ("8b", 3584, 10_553_570_560)],
)
def test_parameters_are_those_of_the_released_models(
    name: str, encoder_ff_dim: int, total: int
) -> None:
    """Their published sizes, which count the encoder's feed-forward rounded up to 256."""
    model = read_recipe(PAPER / f"blt-{name}.toml").model
    assert model is not None
    counts = parameters(meta_model(replace(model, encoder_ff_dim=encoder_ff_dim)))
    assert sum(counts.values()) - counts["entropy model"] == total
    assert counts["hash tables"] == 6 * 500_002 * model.local_dim


def test_time_and_cost_follow_from_flops() -> None:
    data = DataConfig(("nowhere.txt",), context_bytes=128, batch_bytes=256)
    recipe = Recipe("byte", data, TrainConfig(steps=1000, accumulate=2), byte_model=TINY)
    hardware = find_hardware("2xH100")
    plan = make_plan(recipe, hardware, mfu=0.5, price=3.6)
    assert plan.batch_bytes == 256 * 2 * 2
    assert plan.total_bytes == 1000 * plan.batch_bytes
    flops = plan.training_flops * plan.total_bytes
    assert plan.seconds == pytest.approx(flops / (0.5 * 2 * hardware.flops))
    assert plan.cost == pytest.approx(2 * 3.6 * plan.seconds / 3600)
    timed = replace(recipe, train=TrainConfig(seconds=60.0))
    assert make_plan(timed, hardware, mfu=0.5).total_bytes == pytest.approx(
        60 * plan.bytes_per_second
    )


LIMITS = {
    "steps": {"steps": 1000},
    "bytes": {"bytes": 512 * 7 + 1},
    "flops": {"flops": 1.0},
    "seconds": {"seconds": 1e-9},
}


@pytest.mark.parametrize(
    ("limit", "steps"), [("steps", 1000), ("bytes", 8), ("flops", 1), ("seconds", None)]
)
def test_steps_are_those_until_the_first_limit(
    limit: str, steps: int | None, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    data = DataConfig(("nowhere.txt",), context_bytes=128, batch_bytes=512)
    train = TrainConfig(**(LIMITS["steps"] | LIMITS[limit]))
    recipe = Recipe("byte", data, train, byte_model=TINY)
    plan = make_plan(recipe, find_hardware("H100"))
    assert (plan.steps, plan.ended_by) == (steps, limit)
    write_recipe(tmp_path / "r.toml", recipe)
    assert main(["plan", str(tmp_path / "r.toml"), "--hardware", "H100"]) == 0
    assert f"train.{limit}" in capsys.readouterr().out


def test_a_router_is_counted_and_never_compiled() -> None:
    learned = PatchingConfig(rule="learned")
    config = tiny_config(patching=learned, entropy_model=None)
    data = DataConfig(("nowhere.txt",), context_bytes=128, batch_bytes=512)
    recipe = Recipe("blt", data, TrainConfig(steps=9), model=config)
    plan = make_plan(recipe, find_hardware("H100"))
    model = blt.BLT(config)
    assert sum(plan.parameters.values()) == sum(p.numel() for p in model.parameters())
    assert plan.parameters["router"] == 2 * config.local_dim**2
    assert not plan.compiled
    static = replace(config, patching=PatchingConfig(rule="static"))
    assert make_plan(replace(recipe, model=static, routing=None), find_hardware("H100")).compiled


def test_adapters_are_refused_rather_than_planned_as_a_training_of_all_weights() -> None:
    data = DataConfig(("nowhere.txt",), context_bytes=128, batch_bytes=512)
    train = TrainConfig(steps=9)
    recipe = Recipe("byte", data, train, byte_model=TINY, init="some", lora=LoraConfig())
    with pytest.raises(UserError, match="lora: blt plan knows trainings of all weights"):
        make_plan(recipe, find_hardware("H100"))


def test_the_share_of_the_peak_is_what_was_measured_unless_it_is_given(
    capsys: pytest.CaptureFixture[str],
) -> None:
    recipe = PAPER / "blt-1b.toml"
    made = make_plan(read_recipe(recipe), find_hardware("H100"))
    flops = made.training_flops * read_recipe(recipe).data.batch_bytes
    assert (made.mfu, made.mfu_from) == astuple(expected_share("H100", flops, compiled=True))
    assert make_plan(read_recipe(recipe), find_hardware("H100"), 0.3).mfu_from == "given"
    assert main(["plan", str(recipe), "--hardware", "H100"]) == 0
    shown = capsys.readouterr().out
    assert f"if {made.mfu:.1%} of the peak is reached" in shown
    assert made.mfu_from in shown


def test_unknown_hardware_is_named_with_the_nearest() -> None:
    assert find_hardware("8xh100").count == 8
    for text, message in (("8xH10", "did you mean H100"), ("0xH100", "at least one"), ("?", "8xH")):
        with pytest.raises(UserError, match=message):
            find_hardware(text)


@pytest.mark.parametrize("path", sorted(PAPER.glob("blt-*.toml")), ids=lambda path: path.stem)
def test_the_papers_recipes_fit_on_256_h100(path: Path) -> None:
    made = make_plan(read_recipe(path), find_hardware("256xH100"))
    assert made.fits
    assert made.batch_bytes == 2**24


@pytest.mark.parametrize("path", sorted(PAPER.glob("*.toml")), ids=lambda path: path.stem)
def test_the_papers_recipes_build_without_memory(path: Path) -> None:
    recipe = read_recipe(path)
    assert sum(parameters(meta_model(recipe.model or recipe.byte_model)).values()) > 9e7  # type: ignore[arg-type]


def test_blt_plan_prints_tables_and_json(capsys: pytest.CaptureFixture[str]) -> None:
    recipe = str(Path(__file__).parents[2] / "recipes" / "blt-laptop.toml")
    more = ["data.batch_bytes=1024", "data.context_bytes=512"]
    assert main(["plan", recipe, *more, "--hardware", "2xH100"]) == 0
    assert "hash tables" in capsys.readouterr().out
    assert main(["plan", recipe, *more, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["memory"]["weights"] > 0
    assert found["mfu"] == 0.4
    assert found["mfu_from"].startswith("assumed")
    assert main(["plan", recipe, *more, "--mfu", "2"]) == 2


@pytest.mark.parametrize("price", ["-5", "nan", "inf"])
def test_a_price_is_a_number_of_dollars(price: str, capsys: pytest.CaptureFixture[str]) -> None:
    recipe = Path(__file__).parents[2] / "recipes" / "blt-laptop.toml"
    assert "--price must be a number of dollars" in fails(capsys, "plan", recipe, "--price", price)
