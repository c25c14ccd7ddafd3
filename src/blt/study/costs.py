"""What a model costs: FLOPs as the paper counts them and as executed, tables, seconds."""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from blt.data.loader import Loader
from blt.data.text import Source
from blt.lm import LanguageModel, TokenLM
from blt.machine.precision import autocast, choose_dtype
from blt.model.embedding import NgramTables
from blt.train.corpus import texts_of
from blt.train.job import make_fast
from blt.train.recipe import Recipe
from blt.train.sections import TrainConfig
from blt.train.trainer import Trainer

COUNTED = 4  # batches whose FLOPs are counted
WARM, TIMED = 5, 30  # steps before and while the clock runs
HALFWAY = 0.5  # of a schedule
# A row is read forward; backward its gradient is written and read, the row read and written.
ROW_MOVES = 5


def costs_of(model: LanguageModel, recipe: Recipe, sources: Sequence[Source]) -> dict[str, Any]:
    """Costs of one byte of training text; the model goes on training.

    Returns:
        ``flops_per_byte``, forward and backward, by the paper's formula, with the entropy model's
        forward; ``executed_flops_per_byte``, the same as PyTorch counts them; ``table_rows`` and
        ``table_width``, ``table_bytes`` of n-gram tables in memory, ``table_traffic_per_byte`` in
        bytes that a step moves there; ``seconds_per_megabyte`` of whole steps, compiled where the
        training is.
    """
    data = recipe.data
    sizes = {"batch_bytes": data.batch_bytes, "context_bytes": data.context_bytes}
    loader = Loader(texts_of(sources, data), data.weights, **sizes, seed=recipe.seed + 1)
    executed = _executed(model.train(), loader, recipe.train)  # a graph would hide operations
    make_fast(model, recipe.train)
    trainer = Trainer(model, loader, recipe.train)
    steps = [trainer.step(HALFWAY) for _ in range(WARM)]
    formula = sum(step.flops for step in steps) / sum(step.num_bytes for step in steps)
    found = {
        "flops_per_byte": formula,
        "executed_flops_per_byte": executed,
        **_tables(model, steps[-1].patch_size),
        "seconds_per_megabyte": megabyte_seconds(trainer),
        "threads": torch.get_num_threads(),
        "device": model.device.type,
    }
    trainer.loader.close()
    return found


def _executed(model: LanguageModel, loader: Loader, config: TrainConfig) -> float:
    """FLOPs per byte of forward and backward, the entropies' among them."""
    dtype, num_bytes = choose_dtype(config.precision, model.device), 0
    with FlopCounterMode(display=False) as counter:
        for _ in range(COUNTED):
            batch = next(loader)
            with autocast(model.device, dtype):
                ready = model.ready(batch)
                logits = model.predict(ready)
            model.loss(logits, ready.targets).backward()  # type: ignore[no-untyped-call]
            num_bytes += batch.num_bytes
    model.zero_grad()
    return counter.get_total_flops() / num_bytes


def _tables(model: LanguageModel, token_size: float | None) -> dict[str, Any]:
    """Of the n-gram tables; a token model reads its own once for every token."""
    names = ("table_rows", "table_width", "table_bytes", "table_traffic_per_byte")
    found: dict[str, float] = dict.fromkeys(names, 0)
    for table in (part for part in model.modules() if isinstance(part, NgramTables)):
        rows, width = table.ngram.shape
        size = table.ngram.element_size()
        reads = float(table.functions * len(table.sizes))
        if isinstance(model, TokenLM) and token_size:
            reads /= token_size
        found["table_rows"] += rows
        found["table_width"] = width
        found["table_bytes"] += rows * width * size
        found["table_traffic_per_byte"] += ROW_MOVES * reads * width * size
    return found


def megabyte_seconds(trainer: Trainer) -> float:
    """Of a million bytes, in whole steps: laying out, forward, backward, optimisers.

    The median of steps: one that compiles, for a number of patches that is new, takes seconds.
    """
    return statistics.median(_step_seconds(trainer) for _ in range(TIMED)) * 1e6


def _step_seconds(trainer: Trainer) -> float:
    """Seconds per byte of one step."""
    start, done = time.monotonic(), trainer.step(HALFWAY)
    if trainer.model.device.type == "cuda":
        torch.cuda.synchronize(trainer.model.device)
    return (time.monotonic() - start) / done.num_bytes
