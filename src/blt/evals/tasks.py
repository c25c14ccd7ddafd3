"""What ``blt eval`` measures: each task gives rows of a table."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from blt.data import read
from blt.errors import UserError
from blt.evals import cute as cute_task
from blt.evals.bpb import bits_per_byte, choose
from blt.evals.choices import WHERE, accuracy, hellaswag
from blt.evals.noise import NOISES, disturb
from blt.lm import BLT, LanguageModel
from blt.token_lm import TokenLM

Row = dict[str, Any]  # the same keys in all rows of a task, the first one a name


@dataclass(frozen=True)
class Options:
    """How much to measure."""

    context_bytes: int = 2048  # documents are scored in pieces of at most so many bytes
    max_bytes: int = 262144  # of each text
    limit: int | None = None  # questions of each task; None: all
    generate: bool = False  # CUTE: let the model write its answers too


def bpb(lm: LanguageModel, paths: Sequence[str], options: Options) -> Iterator[Row]:
    """Bits per byte of each text, and bytes per patch or token."""
    for path in paths:
        texts = choose(read((path,)).documents, options.max_bytes)
        score = bits_per_byte(lm, texts, context_bytes=options.context_bytes)
        yield {
            "text": path,
            "bytes": sum(map(len, texts)),
            "bits_per_byte": score,
            "bytes_per_patch": patch_size(lm, texts, options.context_bytes),
        }


def noise(lm: LanguageModel, paths: Sequence[str], options: Options) -> Iterator[Row]:
    """Bits per byte of text, disturbed in each way, and how much more than of the text itself."""
    documents = choose(read(tuple(paths)).documents, options.max_bytes)
    plain = bits_per_byte(lm, documents, context_bytes=options.context_bytes)
    yield {"noise": "none", "bits_per_byte": plain, "more": 0.0}
    for name in NOISES:
        texts = [disturb(text, name, seed) for seed, text in enumerate(documents)]
        score = bits_per_byte(lm, texts, context_bytes=options.context_bytes)
        yield {"noise": name, "bits_per_byte": score, "more": score - plain}


def swag(lm: LanguageModel, paths: Sequence[str], options: Options) -> Iterator[Row]:
    """HellaSwag by likelihood: as it is, and with noise in prompt, completion, or both."""
    asked = hellaswag(Path(_one(paths, "a JSONL file of HellaSwag")), options.limit)
    found = accuracy(lm, asked)
    yield {"noise": "none", "where": "", "acc": found.likeliest, "acc_norm": found.per_byte}
    for name in NOISES:
        for where in WHERE:
            found = accuracy(lm, [q.disturbed(name, where, seed) for seed, q in enumerate(asked)])
            row = {"noise": name, "where": where}
            yield {**row, "acc": found.likeliest, "acc_norm": found.per_byte}


def cute(lm: LanguageModel, paths: Sequence[str], options: Options) -> Iterator[Row]:
    """Every task of CUTE: the right answer among wrong ones, and written by the model."""
    if options.generate and isinstance(lm, TokenLM):
        raise UserError("--generate: a token model cannot write yet, only score")
    found = _read_cute(Path(_one(paths, "the folder of CUTE's .tsv files")))
    total: list[Row] = []
    for task, items in found.items():
        asked = cute_task.questions(task, items, options.limit)
        chance = sum(1 / len(question.choices) for question in asked) / max(1, len(asked))
        row: Row = {"task": task, "acc": accuracy(lm, asked).likeliest, "by_chance": chance}
        if options.generate:
            row["written"] = cute_task.generated(lm, asked)
        total.append(row)
        yield row
    means = {key: sum(row[key] for row in total) / len(total) for key in total[0] if key != "task"}
    yield {"task": "mean", **means}


def _read_cute(folder: Path) -> dict[str, list[cute_task.Item]]:
    found = {}
    for task in cute_task.TASKS:
        file = next(iter(sorted(folder.glob(f"{task}.tsv*"))), None)
        if file is None:
            raise UserError(f"{folder}: no {task}.tsv in it; name the folder of CUTE's data")
        found[task] = cute_task.read_task(file)
    return found


TASKS: dict[str, Callable[[LanguageModel, Sequence[str], Options], Iterator[Row]]] = {
    "bpb": bpb,
    "noise": noise,
    "hellaswag": swag,
    "cute": cute,
}


def patch_size(lm: LanguageModel, texts: Sequence[bytes], context_bytes: int) -> float | None:
    """Mean bytes per patch or token; None for a model without either."""
    if isinstance(lm, TokenLM):
        return sum(map(len, texts)) / max(1, sum(len(lm.tokenizer.encode(t)) for t in texts))
    if not isinstance(lm, BLT):
        return None
    from blt.train.calibration import mean_patch_size

    rule, how = lm.config.patching, {"context_bytes": context_bytes, **lm.tables}
    return mean_patch_size(rule, lm.entropy_model, texts, **how)


def _one(paths: Sequence[str], what: str) -> str:
    if len(paths) != 1:
        raise UserError(f"name {what}, and nothing else")
    return paths[0]
