"""What it costs to write whole characters only, and how many that are none it keeps away.

    python -m benchmarks utf8 [FILE.json] --characters 1000000

The model inside the package, at temperature 1. Speed: one engine with ``valid_utf8`` and one
without, in one process, write the same texts and take turns of so many bytes each; who goes first
changes. What the choice of a byte takes by itself is measured beside it, for it alone differs: in
time of the processor, which other programs on the machine lengthen little.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from functools import partial
from itertools import count
from pathlib import Path
from statistics import median, quantiles
from typing import Any

import numpy as np

from benchmarks.machine import about, apart
from benchmarks.report import print_table, report
from blt.evals.samples import validity
from blt.generate import Engine, Generation, Sampling
from blt.generate.sampling import Chooser, distributions
from blt.lm import load
from blt.report.console import Console
from blt.vocab import OFFSET, VOCAB_SIZE, whole

MASKS = {"any bytes": False, "valid UTF-8": True}
BATCHES = (1, 16)  # texts written at the same time
ROUNDS, CHOICES = 20, 200  # of steps' choices alone; the fastest round counts
TURN_STEPS = 50  # steps of a turn, a byte of every text each
SAMPLE_BYTES, TOGETHER = 256, 16  # of one sample; samples written together
PROMPTS = ("", "The ", "Über ", "Её ", "Το ", "זה ", "في ", "यह ", "ไม่", "这", "これは", "그", "😀")


def main(file: Path | None, as_json: bool, model: str, characters: int, turns: int) -> None:
    """Measure, and print tables, JSON or both.

    Args:
        file: also write JSON here.
        as_json: print JSON, unless there is a file, and the tables to standard error.
        model: folder of a model.
        characters: to write, with the mask and without.
        turns: of each engine, to measure speed.
    """
    report(partial(collect, model, characters, turns), show, file, as_json)


def collect(model: str, characters: int, turns: int, console: Console) -> dict[str, Any]:
    """All measurements as plain data."""

    def measure(job: Callable[..., Any], **arguments: Any) -> Any:
        with console.status(f"{job.__name__}: {arguments}"):
            return apart(job, model=model, **arguments)

    results: dict[str, Any] = {"machine": about(), "model": model}
    results["speed"] = {
        str(batch): measure(speed, batch=batch, turns=turns) for batch in BATCHES if turns
    }
    results["written"] = {
        name: measure(written, valid=valid, characters=characters)
        for name, valid in MASKS.items()
        if characters
    }
    return results


def speed(model: str, batch: int, turns: int) -> dict[str, Any]:
    """Seconds of turns of both engines, and of the choices of so many texts' bytes alone."""
    lm = load(model)
    engines = {}
    for name, valid in MASKS.items():
        engines[name] = Engine(lm, max_batch=batch)
        for seed in range(batch):
            how = Sampling(10**5, 1.0, seed=seed, valid_utf8=valid, ignore_eos=True)
            engines[name].submit("The ", how)
        _seconds(engines[name], TURN_STEPS)
    took: dict[str, list[float]] = {name: [] for name in MASKS}
    begun = time.process_time()
    for turn in range(turns):
        for name in list(MASKS) if turn % 2 else reversed(MASKS):
            took[name].append(_seconds(engines[name], TURN_STEPS))
    of_a_step = (time.process_time() - begun) / (turns * TURN_STEPS * len(MASKS))
    free, valid_ones = (took[name] for name in MASKS)
    ratios = [valid / any_bytes for any_bytes, valid in zip(free, valid_ones, strict=True)]
    low, _, high = quantiles(ratios, n=4)
    return {
        "bytes_per_second": {name: batch * TURN_STEPS / median(took[name]) for name in MASKS},
        "fastest_bytes_per_second": {name: batch * TURN_STEPS / min(took[name]) for name in MASKS},
        "time_ratio": {"median": median(ratios), "quartiles": [low, high]},
        "processor_seconds": {
            "step": of_a_step,
            "choice": {name: _choice(batch, valid) for name, valid in MASKS.items()},
        },
    }


def _seconds(engine: Engine, steps: int) -> float:
    begun = time.perf_counter()
    for _ in range(steps):
        engine.step()
    return time.perf_counter() - begun


def _choice(batch: int, valid: bool) -> float:
    """Processor's seconds to make a step's distributions of its logits, and to go on with texts."""
    logits = np.random.default_rng(0).normal(size=(batch, VOCAB_SIZE)).astype(np.float32)
    how = Sampling(10**5, 1.0, valid_utf8=valid, ignore_eos=True)
    choosers = [Chooser.begin(how, b"The ") for _ in range(batch)]

    took = []
    for _ in range(ROUNDS):
        begun = time.process_time()
        for _ in range(CHOICES):
            distributions(choosers, logits)
            for chooser in choosers:
                chooser.after(ord("e") + OFFSET)
        took.append((time.process_time() - begun) / CHOICES)
    return min(took)


def written(model: str, valid: bool, characters: int) -> dict[str, Any]:
    """Characters of samples, as many as asked for, and those that are none."""
    lm, begun = load(model), time.perf_counter()
    engine = Engine(lm, max_batch=TOGETHER, max_queue=TOGETHER)
    found = {"characters": 0, "invalid": 0, "unfinished": 0, "above_ascii": 0, "bytes": 0}
    found["samples"] = 0
    for first in count(0, TOGETHER):
        handles = [
            engine.submit(
                PROMPTS[seed % len(PROMPTS)],
                Sampling(SAMPLE_BYTES, 1.0, seed=seed, valid_utf8=valid),
            )
            for seed in range(first, first + TOGETHER)
        ]
        engine.run()
        _count(found, [handle.result() for handle in handles])
        if found["characters"] >= characters:
            return found | {"seconds": time.perf_counter() - begun}
    raise AssertionError  # count() does not end


def _count(found: dict[str, int], samples: Sequence[Generation]) -> None:
    for sample in samples:
        invalid, characters = validity(sample)
        found["invalid"] += invalid
        found["characters"] += characters
        found["unfinished"] += sample.data != whole(sample.data)
        found["above_ascii"] += sum(ord(c) > 127 for c in sample.data.decode("utf-8", "ignore"))
        found["bytes"] += len(sample.data)
        found["samples"] += 1


def show(results: dict[str, Any], console: Console) -> None:
    """Print what :func:`collect` returned."""
    rows = []
    for batch, of in results["speed"].items():
        free, valid = (of["processor_seconds"]["choice"][name] for name in MASKS)
        low, high = of["time_ratio"]["quartiles"]
        rows.append(
            [batch]
            + [f"{of['bytes_per_second'][name]:.0f} B/s" for name in MASKS]
            + [f"{of['time_ratio']['median'] - 1:+.2%} ({low - 1:+.2%} to {high - 1:+.2%})"]
            + [f"{1e6 * free:.1f} µs", f"{1e6 * valid:.1f} µs"]
            + [f"{(valid - free) / of['processor_seconds']['step']:+.2%}"]
        )
    columns = ("batch", *MASKS, "time, quartiles of turns")
    if rows:
        more = ("choices of a step, any", "valid", "more of a step")
        print_table(console, (*columns, *more), rows)
    rows = [
        [name, *(f"{of[key]:,}" for key in ("characters", "above_ascii", "invalid", "unfinished"))]
        for name, of in results["written"].items()
    ]
    if rows:
        columns = ("written", "characters", "above ASCII", "that are none", "unfinished at the end")
        print_table(console, columns, rows)
