"""What ``blt train`` costs beside its bare steps."""

from __future__ import annotations

import json
import random
import tempfile
import time
from dataclasses import replace
from pathlib import Path

from benchmarks.gpu_jobs import shapes
from benchmarks.gpu_jobs.place import Found, Place
from benchmarks.gpu_jobs.plan import CONTEXT
from benchmarks.steps import prepared_step
from blt.patching import PatchingConfig
from blt.train import DataConfig, Recipe, Report, TrainConfig, train_recipe

REPORTS = 10  # that are measured
WARM_UP = 4  # reports before them
EVERY = 5  # steps of a report


def loop(place: Place, rows: int) -> Found:
    """Bytes per second of everything that ``blt train`` does between its reports, on ``rows``
    documents of 8192 bytes at a time, over those of bare steps of the same shape."""
    rows, context = place.sized(rows, 2), place.sized(CONTEXT, 256)
    steps = EVERY * (WARM_UP + place.sized(REPORTS, 1))
    seen: list[tuple[float, Report]] = []

    def on_progress(report: Report) -> None:
        seen.append((time.perf_counter(), report))

    with tempfile.TemporaryDirectory() as scratch:
        text = Path(scratch) / "text.jsonl"
        text.write_text(_documents(steps * rows, context))
        recipe = _recipe(place, text, rows, context, steps)
        train_recipe(recipe, Path(scratch) / "run", on_progress=on_progress)
    (start, first), (end, last) = seen[WARM_UP - 1], seen[-1]
    speed = (last.bytes_seen - first.bytes_seen) / (end - start)
    size = last.patch_size or 1.0
    yield {"bytes_per_second": speed, "bytes_per_patch": size, "waited": last.waited}
    model = shapes.spaced(shapes.blt_shape("small", place), place.device)
    seconds = place.seconds(prepared_step(model, rows, context, patch_size=size))
    bare = rows * context / seconds
    yield {"bare_bytes_per_second": bare, "share_of_bare": speed / bare}


def _recipe(place: Place, text: Path, rows: int, context: int, steps: int) -> Recipe:
    data = DataConfig((str(text),), context_bytes=context, batch_bytes=rows * context)
    train = TrainConfig(
        steps=steps,
        precision="bfloat16",
        device=str(place.device),
        log_every=EVERY,
        evals=0,
        checkpoint_every_seconds=3600.0,
    )
    model = shapes.blt_shape("small", place)
    spaces = PatchingConfig(rule="space")
    return Recipe("blt", data, train, model=replace(model, patching=spaces))


def _documents(count: int, context: int) -> str:
    """JSONL: words of random letters, as many in each document as the model sees at once."""
    chance = random.Random(0)
    letters = "etaoinshrdlu" * 2 + "cmfwypvbgkjqxz"
    words = ["".join(chance.choices(letters, k=chance.randint(1, 6))) for _ in range(20_000)]
    lines = []
    for _ in range(count):
        text = " ".join(chance.choices(words, k=context // 3))
        lines.append(json.dumps({"text": text[: context - 1]}))
    return "\n".join(lines) + "\n"
