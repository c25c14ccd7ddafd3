"""Benchmarks from a folder on this machine, as the harness's tasks read them.

BLT_BENCH_DATA names the folder; what lies in it is said beside each function.
"""

from __future__ import annotations

import io
import json
import os
import zipfile
from pathlib import Path
from typing import Any

import datasets

from blt.evals import cute as cute_task
from blt.evals import cute_pairs
from blt.evals.noise import PAPER, disturb

Splits = dict[str, datasets.Dataset]
WHERE = ("prompt", "completion", "both")  # noise


def _folder() -> Path:
    name = os.environ.get("BLT_BENCH_DATA")
    if not name:
        raise SystemExit("BLT_BENCH_DATA must name the folder of the benchmarks' data")
    return Path(name)


def _json(pattern: str) -> Splits:
    files = sorted(map(str, _folder().glob(pattern)))
    if not files:
        raise SystemExit(f"{_folder()}: no {pattern} in it")
    return {"test": datasets.load_dataset("json", data_files=files, split="train")}


def hellaswag(noise: str | None = None, where: str = "both", **_: Any) -> Splits:
    """JSONL with ctx, endings, label; with one of the paper's noises where ``where`` says."""
    found = _json("bench-hellaswag/*.jsonl*")["test"]
    if noise is None:
        return {"test": found}
    if noise not in PAPER or where not in WHERE:
        raise SystemExit(f"noise must be one of {', '.join(PAPER)}, where of {', '.join(WHERE)}")
    rows = [_noisy(row, noise, where, seed) for seed, row in enumerate(found)]
    return {"test": datasets.Dataset.from_list(rows)}


def _noisy(row: dict[str, Any], noise: str, where: str, seed: int) -> dict[str, Any]:
    """A question with noise in its prompt, in each of its endings, or in both."""

    def noisy(text: str, seed: int) -> str:
        return disturb(text.encode(), noise, seed).decode()

    ctx, endings = row["ctx"], row["endings"]
    if where in ("prompt", "both"):
        ctx = noisy(ctx, seed)
    if where in ("completion", "both"):
        endings = [noisy(ending, seed + number) for number, ending in enumerate(endings, 1)]
    return {"ctx": ctx, "endings": endings, "label": row["label"]}


def lambada(**_: Any) -> Splits:
    """JSONL with text; its last word is asked for."""
    return _json("bench-lambada/*.jsonl*")


def humaneval(**_: Any) -> Splits:
    """JSONL with prompt."""
    return _json("bench-humaneval/*.jsonl*")


def piqa(**_: Any) -> Splits:
    """JSONL with goal, sol1, sol2, and beside it a list of labels."""
    found = _json("bench-piqa/valid.jsonl*")["test"]
    labels = (_folder() / "bench-piqa" / "valid-labels.lst").read_text().split()
    return {"test": found.add_column("label", [int(label) for label in labels])}


def blimp(limit: int | None = None, **_: Any) -> Splits:
    """A zip of JSONL files with sentence_good, sentence_bad; ``limit`` pairs of each."""
    rows = []
    with zipfile.ZipFile(next(_folder().glob("bench-blimp/*.zip"))) as archive:
        for name in sorted(n for n in archive.namelist() if n.endswith(".jsonl")):
            lines = list(io.TextIOWrapper(archive.open(name), "utf-8"))
            rows += [json.loads(line) for line in lines[:limit]]
    keys = ("sentence_good", "sentence_bad", "UID")
    return {"test": datasets.Dataset.from_list([{key: row[key] for key in keys} for row in rows])}


def cute(limit: int | None = None, **_: Any) -> Splits:
    """CUTE's .tsv files, with the prompts and wrong answers of ``blt eval cute``.

    Without the two-way tasks, which are not one prompt and its choices there.
    """
    rows = []
    for task, items in cute_task.read_folder(_folder() / "bench-cute" / "data").items():
        for asked in cute_pairs.questions(task, items, limit):
            if {len(option) for option in asked.options} == {1}:
                choices = [option[0].continuation.decode() for option in asked.options]
                rows.append({"task": task, "prompt": asked.options[0][0].prompt.decode(),
                             "choices": choices, "answer": asked.answer})  # fmt: skip
    return {"test": datasets.Dataset.from_list(rows)}
