"""What ``blt eval`` measures: each task gives rows of a table."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from blt.data import read
from blt.errors import UserError
from blt.evals import cute as cute_task
from blt.evals import languages, samples
from blt.evals.noise import NOISES, disturb
from blt.evals.patch_size import patch_size
from blt.lm import LanguageModel
from blt.machine.precision import Precision, autocast, reading_dtype
from blt.scoring.bits import bits_per_byte
from blt.texts.pieces import choose

Row = dict[str, Any]  # the same keys in all rows of a task, the first one a name


@dataclass(frozen=True)
class Options:
    """How much to measure."""

    context_bytes: int = 2048  # documents are scored in pieces of at most so many bytes
    max_bytes: int = 262144  # of each text
    limit: int | None = None  # questions, sentences or samples of each task; None: all
    generate: bool = False  # CUTE: let the model write its answers too
    precision: Precision = "auto"  # of matrix products; auto: bfloat16 on a GPU that has it

    def scoring(self, lm: LanguageModel) -> dict[str, Any]:
        """How :func:`blt.scoring.bits.bits_per_byte` is to score."""
        dtype = reading_dtype(lm.device, self.precision)
        return {"context_bytes": self.context_bytes, "dtype": dtype}


def bpb(lm: LanguageModel, paths: Sequence[str], options: Options) -> Iterator[Row]:
    """Bits per byte of each text, and bytes per patch or token."""
    for path in paths:
        texts = choose(read((path,)).documents, options.max_bytes)
        score = bits_per_byte(lm, texts, **options.scoring(lm))
        yield {
            "text": path,
            "bytes": sum(map(len, texts)),
            "bits_per_byte": score,
            "bytes_per_patch": patch_size(lm, texts, **options.scoring(lm)),
        }


def noise(lm: LanguageModel, paths: Sequence[str], options: Options) -> Iterator[Row]:
    """Bits per byte of text, disturbed in each way, and how much more than of the text itself."""
    documents = choose(read(tuple(paths)).documents, options.max_bytes)
    plain = bits_per_byte(lm, documents, **options.scoring(lm))
    yield {"noise": "none", "bits_per_byte": plain, "more_bits": 0.0}
    for name in NOISES:
        texts = [disturb(text, name, seed) for seed, text in enumerate(documents)]
        score = bits_per_byte(lm, texts, **options.scoring(lm))
        yield {"noise": name, "bits_per_byte": score, "more_bits": score - plain}


def cute(lm: LanguageModel, paths: Sequence[str], options: Options) -> Iterator[Row]:
    """Every task of CUTE: the right answer among wrong ones, and written by the model."""
    found = _read_cute(Path(_one(paths, "the folder of CUTE's .tsv files")))
    total: list[Row] = []
    for task, items in found.items():
        asked = cute_task.questions(task, items, options.limit)
        chance = sum(1 / len(question.choices) for question in asked) / max(1, len(asked))
        with autocast(lm.device, reading_dtype(lm.device, options.precision)):
            right = cute_task.accuracy(lm, asked)
        row: Row = {"task": task, "acc": right.likeliest, "acc_norm": right.per_character}
        row["by_chance"] = chance
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


def parallel(lm: LanguageModel, paths: Sequence[str], options: Options) -> Iterator[Row]:
    """Bits per byte, and bytes per patch, of the same sentences in many languages."""
    folder = Path(_one(paths, "a folder with one file per language"))
    return languages.compare(lm, folder, options.limit, options.scoring(lm))


def utf8(lm: LanguageModel, paths: Sequence[str], options: Options) -> Iterator[Row]:
    """How much of what the model writes is not UTF-8: after nothing, and after each text."""
    count = options.limit or samples.SAMPLES
    for path in ("", *paths):
        texts = read((path,)).documents if path else []
        found = samples.validity(lm, samples.prompts(texts, count))
        yield {
            "after": path or "nothing",
            "samples": count,
            "bytes": found.bytes,
            "invalid_samples": found.samples,
            "invalid_characters": found.characters,
        }


TEXT = ("max_bytes", "context_bytes", "precision")  # options of tasks that score whole texts
Measure = Callable[[LanguageModel, Sequence[str], Options], Iterator[Row]]


@dataclass(frozen=True)
class Task:
    """What ``blt eval`` measures, and which columns a figure of it shows."""

    rows: Measure
    shown: tuple[str, ...]
    takes: tuple[str, ...] = ("limit",)  # which options mean something


TASKS: dict[str, Task] = {
    "bpb": Task(bpb, ("bits_per_byte", "bytes_per_patch"), TEXT),
    "noise": Task(noise, ("bits_per_byte", "more_bits"), TEXT),
    "languages": Task(
        parallel,
        ("bits_per_byte", "bytes_per_patch", "patches_vs_english"),
        ("limit", "context_bytes", "precision"),
    ),
    "utf8": Task(utf8, ("invalid_samples", "invalid_characters")),
    "cute": Task(
        cute, ("acc", "acc_norm", "by_chance", "written"), ("limit", "generate", "precision")
    ),
}

# Benchmarks that people ask for here, and what the harness calls them.
HARNESS = {
    "blimp": "blimp",
    "hellaswag": "hellaswag",
    "lambada": "lambada_openai",
    "piqa": "piqa",
}


def find_task(name: str) -> Task:
    """What ``blt eval NAME`` measures.

    Raises:
        UserError: no such task; says which there are, or that lm-evaluation-harness has it.
    """
    if name in HARNESS:
        raise UserError(
            f"unknown task {name!r}: lm-evaluation-harness has it; use blt lm-eval --model blt "
            f"--model_args pretrained=FOLDER --tasks {HARNESS[name]}"
        )
    if name not in TASKS:
        raise UserError(f"unknown task {name!r}: choose one of {', '.join(TASKS)}")
    return TASKS[name]


def _one(paths: Sequence[str], what: str) -> str:
    if len(paths) != 1:
        raise UserError(f"name {what}, and nothing else")
    return paths[0]
