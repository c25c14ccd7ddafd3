"""lm-evaluation-harness: ``blt`` beside the harness's own ``hf`` on the same weights and documents.

    BLT_BENCH_DATA=FOLDER python -m benchmarks harness [FILE.json]

The model is the one in the package, written as a transformers folder with a byte tokenizer. Each
side is given its fastest batch size. Clocked are the harness's calls of the model, without tasks,
data and statistics. The second table is ours alone: what reading shared beginnings once is worth.
"""

from __future__ import annotations

import json
import logging
import math
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

if __name__ == "__main__":  # python benchmarks/harness.py is python -m benchmarks harness
    sys.path[0] = str(Path(__file__).parents[1])
    from benchmarks.__main__ import main as command

    raise SystemExit(command(["harness", *sys.argv[1:]]))

import lm_eval
import torch
from lm_eval.models.huggingface import HFLM
from lm_eval.tasks import TaskManager
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

import blt
from benchmarks.harness_tasks.local_data import hellaswag
from benchmarks.machine import about
from benchmarks.report import write
from benchmarks.shape import transformers_model
from blt.checkpoint.layouts.transformers import mapping
from blt.errors import UserError
from blt.evals.harness import Harness
from blt.generate.incremental_blt import cached
from blt.lm import SCORING_BYTES
from blt.texts.pieces import groups
from blt.tokens.tokenizer import byte_characters

TASK_FILES = Path(__file__).parent / "harness_tasks"
# What is run: task, examples before each question (the harness draws new ones for each), documents.
TASKS = {
    "HellaSwag": ("local_hellaswag", 0, 60),
    "HellaSwag, 5 examples": ("local_hellaswag", 5, 12),
    "CUTE": ("local_cute", 0, 70),
    "LAMBADA": ("local_lambada", 0, 100),
    "BLiMP": ("local_blimp", 0, 335),
}
BATCHES = (1, 8, 32)  # of transformers
ROUNDS = 2  # the faster one counts


def write_transformers(lm: blt.BLT, folder: Path) -> None:
    """The same weights as a ``BltForCausalLM``, and a tokenizer whose tokens are bytes."""
    theirs = transformers_model(lm.config)
    theirs.config.patching_threshold = lm.config.patching.threshold
    theirs.config.use_cache = False
    assert lm.config.entropy_model is not None
    rope = theirs.config.patcher_config.rope_parameters  # read when the folder is loaded
    rope["rope_theta"] = lm.config.entropy_model.rope_theta
    state, ours = theirs.state_dict(), lm.state_dict()
    for name, sources in mapping(lm.config).items():
        parts = ours[name].split([len(state[source]) for source in sources])
        state.update(zip(sources, parts, strict=True))
    theirs.load_state_dict(state)
    theirs.save_pretrained(folder)
    special = ["<boe>", "<s>", "</s>", "<bpe>"]
    names = [*special, *byte_characters()]
    tokenizer = Tokenizer(models.BPE({name: i for i, name in enumerate(names)}, []))
    tokenizer.add_special_tokens(special)
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.TemplateProcessing("<s> $A", special_tokens=[("<s>", 1)])
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", pad_token="<boe>"
    ).save_pretrained(folder)


class Clock:
    """Counts the seconds and bytes of a model's calls."""

    def __init__(self, lm: Any) -> None:
        self.lm, self.seconds, self.bytes = lm, 0.0, 0
        self.found: list[tuple[float, bool]] = []
        self._call = lm.loglikelihood
        lm.loglikelihood = self

    def __call__(self, requests: Sequence[Any], **options: Any) -> Any:
        start = time.perf_counter()
        found = self._call(requests, **options)
        self.seconds += time.perf_counter() - start
        self.bytes += sum(len("".join(request.args).encode()) for request in requests)
        self.found += found
        return found


def run(lm: Any, name: str, manager: TaskManager, limit: int | None = None) -> dict[str, Any]:
    task, examples, documents = TASKS[name]
    clock = Clock(lm)
    results = lm_eval.simple_evaluate(
        lm, tasks=[task], num_fewshot=examples, task_manager=manager, limit=limit or documents,
        bootstrap_iters=0, log_samples=False,
    )  # fmt: skip
    lm.loglikelihood = clock._call
    scores = {key.split(",")[0]: value for key, value in results["results"][task].items()
              if isinstance(value, float) and "stderr" not in key}  # fmt: skip
    return {"scores": scores, "seconds": clock.seconds, "bytes": clock.bytes,
            "bytes_per_second": clock.bytes / clock.seconds,
            "log_p": [float(x) for x, _ in clock.found]}  # fmt: skip


def fastest(folder: str, dtype: str, manager: TaskManager) -> HFLM:
    """The harness's ``hf`` with the batch size that is fastest on some of HellaSwag."""
    found = []
    for size in BATCHES:
        lm = HFLM(folder, device="cpu", dtype=dtype, batch_size=size)
        run(lm, "HellaSwag", manager, 2)
        found.append((run(lm, "HellaSwag", manager, 8)["bytes_per_second"], size, lm))
        print(f"hf {dtype} batch {size}: {found[-1][0]:,.0f} bytes/s", flush=True)
    return max(found, key=lambda item: item[:2])[2]


def compare(model: str, folder: str, manager: TaskManager) -> dict[str, Any]:
    sides: dict[str, Any] = {
        "hf float32": fastest(folder, "float32", manager),
        "hf bfloat16": fastest(folder, "bfloat16", manager),
        "blt float32": Harness(model, device="cpu"),
        "blt bfloat16": Harness(model, device="cpu", dtype="bfloat16"),
    }
    results: dict[str, Any] = {}
    for task in TASKS:
        rows: dict[str, Any] = {}
        for _ in range(ROUNDS):  # all sides in turn
            for name, lm in sides.items():
                row = run(lm, task, manager)
                if name not in rows or row["seconds"] < rows[name]["seconds"]:
                    rows[name] = row
        logs = {name: row.pop("log_p") for name, row in rows.items()}
        pairs = zip(logs["hf float32"], logs["blt float32"], strict=True)
        difference = max(abs(a - b) / max(1.0, abs(a)) for a, b in pairs)
        speed = {name: row["bytes_per_second"] for name, row in rows.items()}
        best = {side: max(v for k, v in speed.items() if k.startswith(side))
                for side in ("hf", "blt")}  # fmt: skip
        results[task] = {
            "documents": TASKS[task][2],
            "requests": len(logs["hf float32"]),
            "rows": rows,
            "largest_relative_difference": difference,
            "ratio_float32": speed["blt float32"] / speed["hf float32"],
            "ratio_fastest": best["blt"] / best["hf"],
        }
        print(task, json.dumps(results[task]), flush=True)
    return results


# --- ours alone: three ways to score the choices of a question -----------------------------------


@torch.no_grad()
def whole(lm: blt.BLT, pairs: Sequence[tuple[bytes, bytes]]) -> list[float]:
    """Every prompt with every choice, packed."""
    found = [0.0] * len(pairs)
    for group in groups([len(prompt) + len(rest) + 1 for prompt, rest in pairs], SCORING_BYTES):
        documents = [lm.ids_of(b"".join(pairs[index])) for index in group]
        logits = lm.packed_logits(documents).split([len(ids) for ids in documents])
        for index, ids, rows in zip(group, documents, logits, strict=True):
            found[index] = _sum(rows[:-1], ids[1:], len(pairs[index][0]))
    return found


@torch.no_grad()
def by_state(lm: blt.BLT, pairs: Sequence[tuple[bytes, bytes]]) -> list[float]:
    """Each prompt read once, its state copied for each choice, all choices read on together."""
    found: list[float] = []
    model = cached(lm, 16)
    for prompt, same in groupby(pairs, key=lambda pair: pair[0]):
        rests = [blt.encode(rest, bos=False) for _, rest in same]
        model.read([blt.encode(prompt).tolist()])
        for _ in rests[1:]:
            model.fork(0)
        first = model.logits[: len(rests), None].clone()
        length = max(map(len, rests))
        padded = [[*rest.tolist(), *[4] * (length - len(rest))] for rest in rests]
        parts = [first]
        for at in range(0, length - 1, 32):
            new = [ids[at : min(at + 32, length - 1)] for ids in padded]
            parts.append(model.extend(new))
            model.commit([len(new[0])] * len(new))
        for row, rest in zip(torch.cat(parts, 1), rests, strict=True):
            found.append(_sum(row[: len(rest)], rest, 0))
        while model.texts:
            model.drop(len(model.texts) - 1)
    return found


def _sum(logits: torch.Tensor, wanted: torch.Tensor, first: int) -> float:
    log_p = logits[first:].log_softmax(-1).gather(1, wanted[first:, None])
    return float(log_p.sum(dtype=torch.float64))


def ways(lm: blt.BLT) -> dict[str, Any]:
    """Bytes per second of prompts and choices, HellaSwag."""
    questions = hellaswag()["test"].select(range(100))
    pairs = [(q["ctx"].encode(), f" {end}".encode()) for q in questions for end in q["endings"]]
    size = sum(len(prompt) + len(rest) for prompt, rest in pairs)
    found: dict[str, Any] = {}
    plain = whole(lm, pairs)
    kinds: dict[str, Callable[[], list[float]]] = {
        "whole": lambda: whole(lm, pairs),
        "state": lambda: by_state(lm, pairs),
        "tree": lambda: lm.log_likelihoods(pairs),
    }
    for name, call in kinds.items():
        call()
        seconds = math.inf
        for _ in range(ROUNDS):
            start = time.perf_counter()
            scores = call()
            seconds = min(seconds, time.perf_counter() - start)
        difference = max(abs(a - b) / max(1.0, abs(a)) for a, b in zip(plain, scores, strict=True))
        found[name] = {"bytes_per_second": size / seconds, "largest_difference": difference}
        print(name, found[name], flush=True)
    return found


def both_can_run(model: str) -> blt.BLT:
    """A BLT that transformers can be given.

    Raises:
        UserError: another model; says which.
    """
    lm = blt.load(model)
    if not isinstance(lm, blt.BLT) or lm.config.patching.rule != "entropy":
        raise UserError(
            f"{model}: is no BLT that cuts by an entropy model's entropies, and transformers has "
            "no other; name a folder of one with --model"
        )
    return lm


def main(file: Path | None, model: str) -> None:
    logging.disable(logging.WARNING)
    manager = TaskManager(include_path=str(TASK_FILES), include_defaults=False,
                          metadata={"limit": 5})  # fmt: skip
    lm = both_can_run(model)
    results: dict[str, Any] = {"machine": about()}
    with tempfile.TemporaryDirectory() as scratch:
        write_transformers(lm, Path(scratch))
        results["ways"] = ways(lm)
        results["tasks"] = compare(model, scratch, manager)
    write(file, results)
