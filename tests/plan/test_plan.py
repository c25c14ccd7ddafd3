"""A plan follows the model and the trainer, takes no memory, and leaves nothing behind."""

from __future__ import annotations

import json
import subprocess
import sys
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import blt
from blt.cli import main
from blt.errors import UserError
from blt.plan import find_hardware, make_plan, trace
from blt.plan.plan import parameters
from blt.plan.trace import meta_model, trace_step
from blt.train import DataConfig, Recipe, TrainConfig, read_recipe
from shapes import TINY, random_blt, tiny_config

PAPER = Path(__file__).parents[2] / "recipes" / "paper"
SMALL = {"batch_bytes": 256, "context_bytes": 128, "patch_size": 4.0, "dtype": torch.float32}


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


def test_memory_of_weights_gradients_and_optimiser_is_what_the_trainer_keeps() -> None:
    config = tiny_config()
    model = blt.BLT(config)
    trained = sum(p.numel() for p in model.parameters()) - sum(
        p.numel()
        for p in model.entropy_model.parameters()  # type: ignore[union-attr]
    )
    table = model.encoder.embedding.ngram
    memory = trace_step(config, **SMALL)
    assert memory.weights == 4 * sum(p.numel() for p in model.parameters())
    moments = 2 * 4 * (trained - table.numel()) + 2 * 4 * len(table)
    count = len([p for p in model.parameters() if p.requires_grad])
    assert memory.optimizer == pytest.approx(moments, abs=4 * count)  # and a step count for each
    muon = trace_step(config, **SMALL, optimizer="muon")
    inner = [p for n, p in model.named_parameters() if p.requires_grad and p.dim() == 2]
    saved = 4 * sum(p.numel() for p in inner) - 4 * model.decoder.head.weight.numel()
    saved -= 4 * (table.numel() + model.encoder.embedding.byte.numel())  # one moment, not two
    assert memory.optimizer - muon.optimizer == pytest.approx(saved, abs=4 * count)
    assert memory.peak == (memory.weights + memory.gradients + memory.optimizer + memory.working)


def test_longer_contexts_and_batches_need_more_and_recomputing_less() -> None:
    config = tiny_config(global_layers=6)
    one = trace_step(config, **SMALL)
    twice = trace_step(config, **{**SMALL, "batch_bytes": 512})
    assert twice.working == pytest.approx(2 * one.working, rel=0.3)
    assert twice.weights == one.weights
    assert trace_step(config, **SMALL, recomputes=True).working < one.working


def test_four_processes_hold_a_quarter_each() -> None:
    config = tiny_config()
    one, four = trace_step(config, **SMALL), trace_step(config, **SMALL, world=4)
    frozen = 4 * sum(p.numel() for p in blt.ByteLM(config.entropy_model).parameters())  # type: ignore[arg-type]
    # Rows are dealt out whole, so parts are a little more than a quarter.
    assert four.weights - frozen == pytest.approx((one.weights - frozen) / 4, rel=0.1)


@pytest.mark.parametrize("recomputes", [False, True])
def test_one_block_of_attention_of_each_shape_tells_what_all_of_them_take(
    monkeypatch: pytest.MonkeyPatch, recomputes: bool
) -> None:
    more = {**SMALL, "batch_bytes": 4096, "context_bytes": 2048}
    config = tiny_config(sliding_window=128)
    short = trace_step(config, **more, recomputes=recomputes)
    monkeypatch.setattr(trace, "_each_block_once", nullcontext)
    whole = trace_step(config, **more, recomputes=recomputes)
    assert short.working == pytest.approx(whole.working, rel=0.01)
    assert replace(short, working=0, peak=0) == replace(whole, working=0, peak=0)


def test_a_trace_leaves_no_fake_tensor_behind() -> None:
    lm, ids = random_blt(), blt.encode(b"some text " * 30)
    before = lm.logits(ids)
    trace_step(lm.config, **SMALL)
    assert torch.equal(lm.logits(ids), before)
    assert not torch.distributed.is_initialized()


def test_the_8b_step_is_traced_on_256_processes_without_memory() -> None:
    """In a process of its own, whose peak memory is looked at."""
    code = f"""
import json, resource, torch
from blt.plan.trace import trace_step
from blt.train import read_recipe
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
model = read_recipe({str(PAPER / "blt-8b.toml")!r}).model
memory = trace_step(model, batch_bytes=1024, context_bytes=1024, patch_size=4.5,
                    dtype=torch.bfloat16, world=256, recomputes=True, gpu=True)
after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print(json.dumps([memory.weights, memory.optimizer, memory.peak, (after - before) * 1024]))
"""
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
    weights, optimizer, peak, real = json.loads(done.stdout)
    dense = 10.45e9 - 3.84e9  # without hash tables, which keep two floats per row
    assert weights == pytest.approx(4 * 10.45e9 / 256 + 4 * 0.1e9, rel=0.02)
    assert optimizer == pytest.approx(8 * dense / 256, rel=0.02)
    assert peak > 30e9  # gathered hash tables and their gradient alone
    assert real < 0.5e9


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


def test_unknown_hardware_is_named_with_the_nearest() -> None:
    assert find_hardware("8xh100").count == 8
    for text, message in (("8xH10", "did you mean H100"), ("0xH100", "at least one"), ("?", "8xH")):
        with pytest.raises(UserError, match=message):
            find_hardware(text)


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
    assert json.loads(capsys.readouterr().out)["memory"]["weights"] > 0
    assert main(["plan", recipe, *more, "--mfu", "2"]) == 2
