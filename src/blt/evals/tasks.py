"""What ``blt eval`` measures: each task gives rows of a table."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

from blt.data import read
from blt.errors import UserError, require, require_whole
from blt.evals import answers as answers_task
from blt.evals import benchmarks, cute_pairs, languages, phonemes, robustness, samples
from blt.evals import cute as cute_task
from blt.evals.choices import credits, evenly, guess
from blt.evals.intervals import documents_of
from blt.evals.patch_size import patch_size
from blt.evals.rows import (
    MAX_BYTES,
    Measured,
    Options,
    Row,
    accuracy,
    mean_of,
    only,
)
from blt.lm import LanguageModel
from blt.machine.precision import autocast
from blt.scoring.bits import piece_bits
from blt.texts.pieces import drawn

Rows = Iterator[Measured]
NOISE_BYTES = 65536  # of text that is disturbed in all ways, where nothing else is said


def bpb(lm: LanguageModel, paths: Sequence[str], options: Options) -> Rows:
    """Bits per byte of each text, and bytes per patch or token."""
    for path in paths:
        pieces = drawn(read((path,)).documents, *_size(options))
        texts = list(chain.from_iterable(pieces))
        bits = piece_bits(lm, texts, options.dtype(lm))
        sizes = list(map(len, texts))
        row: Row = {"text": path, "bytes": sum(sizes), "documents": len(pieces)}
        row["bits_per_byte"] = sum(bits) / max(1, sum(sizes))
        row["bytes_per_patch"] = patch_size(lm, texts, **options.scoring(lm))
        yield Measured(row, "bits_per_byte", bits, sizes, documents_of(pieces))


def _size(options: Options) -> tuple[int, int]:
    """Bytes of a text that are scored, and of a piece."""
    return options.max_bytes or MAX_BYTES, options.context_bytes


def noise(lm: LanguageModel, paths: Sequence[str], options: Options) -> Rows:
    """What noise costs, in the text that is scored and in the context of clean text."""
    size = options.max_bytes or NOISE_BYTES
    pieces = drawn(read(tuple(paths)).documents, size, options.context_bytes)
    if not pieces:
        raise UserError(f"{' '.join(paths)}: no text in it")
    return robustness.rows(lm, list(chain.from_iterable(pieces)), documents_of(pieces), options)


def cute(lm: LanguageModel, paths: Sequence[str], options: Options) -> Rows:
    """Every task of CUTE: matched pairs by likelihood, or answers that the model writes."""
    folder = _one("cute", paths)
    rows: list[Measured] = []
    for task, items in cute_task.read_folder(folder).items():
        about: Row = {"task": task}
        if options.generate:
            asked = evenly(items, options.limit)
            written = cute_task.generated(lm, task, asked, options.zero_shot)
            rows.append(accuracy(about, written, 0.0))
        else:
            pairs = cute_pairs.questions(task, items, options.limit, options.zero_shot)
            with autocast(lm.device, options.dtype(lm)):
                rows.append(accuracy(about, credits(lm, pairs), guess(pairs)))
        yield rows[-1]
    yield mean_of("mean", rows)


def parallel(lm: LanguageModel, paths: Sequence[str], options: Options) -> Rows:
    """Bits per byte, and bytes per patch, of the same sentences in many languages."""
    return languages.compare(lm, _one("languages", paths), options)


def utf8(lm: LanguageModel, paths: Sequence[str], options: Options) -> Rows:
    """How much of what the model writes is not UTF-8: after nothing, and after each text."""
    count = options.limit or samples.SAMPLES
    for path in ("", *paths):
        texts = read((path,)).documents if path else []
        yield from samples.rows(lm, path or "nothing", samples.prompts(texts, count))


def answers(lm: LanguageModel, paths: Sequence[str], options: Options) -> Rows:
    """Questions with answers, as models are fine-tuned on: which are written to the byte?"""
    return answers_task.rows(lm, paths, options)


def g2p(lm: LanguageModel, paths: Sequence[str], options: Options) -> Rows:
    """Grapheme to phoneme: bits of the right answer, and what the model writes."""
    return phonemes.rows(lm, _one("g2p", paths), options)


def blimp(lm: LanguageModel, paths: Sequence[str], options: Options) -> Rows:
    """BLiMP: is the good sentence of each pair likelier?"""
    return benchmarks.blimp(lm, _one("blimp", paths), options)


def lambada(lm: LanguageModel, paths: Sequence[str], options: Options) -> Rows:
    """LAMBADA: the last word of each passage."""
    return benchmarks.lambada(lm, _one("lambada", paths), options)


def hellaswag(lm: LanguageModel, paths: Sequence[str], options: Options) -> Rows:
    """HellaSwag: which of four endings follows?"""
    return benchmarks.hellaswag(lm, _one("hellaswag", paths), options)


# options of tasks that score whole texts
TEXT = ("max_bytes", "context_bytes", "precision", "target_patch_size")
COUNTS = ("context_bytes", "max_bytes", "limit")  # options that are at least 1
Measure = Callable[[LanguageModel, Sequence[str], Options], Rows]


@dataclass(frozen=True)
class Task:
    """What ``blt eval`` measures, and which columns a figure of it shows."""

    rows: Measure
    shown: tuple[str, ...]
    takes: tuple[str, ...] = ("limit",)  # which options mean something
    one: str = ""  # what its only path names; of a task that takes several, or none: nothing


TASKS: dict[str, Task] = {
    "bpb": Task(bpb, ("bits_per_byte", "bytes_per_patch"), TEXT),
    "noise": Task(noise, ("above_noise", "more_bits"), (*TEXT, "typos")),
    "languages": Task(
        parallel,
        ("bits_per_byte", "bytes_per_patch", "patches_vs_english"),
        ("limit", "context_bytes", "precision"),
        "a folder with one file per language",
    ),
    "utf8": Task(utf8, ("invalid_characters", "masked_per_byte")),
    "answers": Task(
        answers, ("exact", "character_errors", "bits_per_byte"), ("limit", "precision")
    ),
    "g2p": Task(
        g2p,
        ("bits_per_byte", "phoneme_errors", "exact"),
        ("limit", "generate", "precision"),
        "a folder of SIGMORPHON's .tsv files",
    ),
    "blimp": Task(blimp, ("acc", "guess"), ("limit", "precision"), "BLiMP's .zip or .jsonl file"),
    "lambada": Task(lambada, ("value",), ("limit", "precision"), "LAMBADA's .jsonl file"),
    "hellaswag": Task(
        hellaswag,
        ("acc", "robustness"),
        ("limit", "noise", "precision"),
        "HellaSwag's .jsonl file",
    ),
    "cute": Task(
        cute,
        ("acc", "guess"),
        ("limit", "generate", "zero_shot", "precision"),
        "the folder of CUTE's .tsv files",
    ),
}

HARNESS = {"piqa": "piqa"}  # asked for here, and what lm-evaluation-harness calls it


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


def check_paths(task: str, paths: Sequence[str], hint: str = "") -> None:
    """Refuse a task without its texts or data, or with more than it takes.

    Args:
        hint: what else may be wrong: the end of the error's message.
    """
    if not paths and task != "utf8":
        raise UserError(f"{task}: name its texts or data{hint}")
    if TASKS[task].one:
        only(paths, TASKS[task].one)


def check_options(
    task: str, options: Mapping[str, Any], called: Callable[[str], str] = str
) -> None:
    """Refuse options that would do nothing for a task, and counts of nothing.

    Args:
        options: by their names in :class:`Options`; those left out are None, or False.
        called: what an option is called where it is given.
    """
    takes = TASKS[task].takes
    given = [name for name, value in options.items() if value is not None and value is not False]
    for name in COUNTS:
        if name in given:
            require_whole(called(name), options[name], 1)
    for name in given:
        means = f"{called(name)}: means nothing for {task}, which takes "
        require(name in takes, means + ", ".join(map(called, takes)))


def _one(task: str, paths: Sequence[str]) -> Path:
    """The one path of a task that takes no more."""
    return Path(only(paths, TASKS[task].one))
