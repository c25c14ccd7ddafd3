"""Layers that are divided among processes compile as those of one process do."""

from __future__ import annotations

import json
import random
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
import torch._dynamo as dynamo
from torch import Tensor
from torch._dynamo.testing import CompileCounterWithBackend

import blt
from blt import cli
from blt.train import DataConfig, Recipe, TrainConfig
from blt.train.trainer import Step, Trainer
from metrics import reports
from processes import train, write
from shapes import tiny_config

STEPS = 6
GRAPHS = 5  # a local layer, a global one, cross-attention both ways, the loss
UNLIKE = {"local_dim": 48, "local_heads": 3, "global_dim": 64, "global_heads": 4}


class OpenSizes(CompileCounterWithBackend):
    """Counts graphs, which leave open how their tensors lie in memory, and no other number."""

    def __call__(self, graph: torch.fx.GraphModule, inputs: list[Tensor]) -> Any:
        given = [node.meta["example_value"] for node in graph.graph.find_nodes(op="placeholder")]
        tensors = [value for value in given if isinstance(value, Tensor)]
        laid = {str(n) for x in tensors for n in (*x.shape, *x.stride(), x.storage_offset())}
        numbers = {str(value) for value in given if not isinstance(value, Tensor)}
        assert numbers <= laid, numbers - laid
        return super().__call__(graph, inputs)


def main(arguments: list[str], *, backend: str) -> int:
    """A command of ours that counts the graphs of a training after each step."""
    counter, step = OpenSizes(backend), Trainer.step
    torch.compile = partial(torch.compile, backend=counter)  # type: ignore[assignment]

    def counted(trainer: Trainer, progress: float) -> Step:
        dynamo.config.suppress_errors = False  # what cannot be compiled is an error here
        if trainer.steps == 0:
            counter.clear()  # something small has shown that compiling works
        taken = step(trainer, progress)
        assert counter.frame_count == GRAPHS
        return taken

    Trainer.step = counted  # type: ignore[assignment,method-assign]
    return cli.main(arguments)


@pytest.mark.parametrize("backend", ["aot_eager", pytest.param("inductor", marks=pytest.mark.slow)])
def test_two_processes_learn_the_same_compiled_and_later_steps_compile_nothing(
    backend: str, tmp_path: Path
) -> None:
    draw = random.Random(0)
    documents = [f"{n} bottles of beer, " * draw.randrange(1, 9) for n in range(200)]
    text = tmp_path / "documents.jsonl"  # long and short ones: of some a batch has more
    text.write_text("".join(json.dumps({"text": document}) + "\n" for document in documents))
    spaces = blt.PatchingConfig("space")
    recipe = Recipe(
        "blt",
        DataConfig((str(text),), context_bytes=100, batch_bytes=256),
        TrainConfig(steps=STEPS, lr=1e-2, precision="float32", evals=0),
        model=tiny_config(patching=spaces, entropy_model=None, **UNLIKE),
    )
    plain, fast = tmp_path / "plain", tmp_path / "fast"
    train(write(recipe, tmp_path / "plain.toml"), plain, processes=2)
    compiled = write(recipe, tmp_path / "fast.toml", compile=True)
    train(compiled, fast, processes=2, verb=partial(main, backend=backend))
    assert len(reports(fast)) == STEPS
    for found, expected in zip(reports(fast), reports(plain), strict=True):
        for name in ("bits_per_byte", "grad_norm"):
            assert found[name] == pytest.approx(expected[name], rel=1e-5)
