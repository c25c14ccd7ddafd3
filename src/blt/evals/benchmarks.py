"""BLiMP, LAMBADA and HellaSwag from their authors' files, by likelihood, with intervals."""

from __future__ import annotations

import json
import math
import statistics
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from blt.data.compressed import text_of
from blt.errors import UserError, require
from blt.evals.choices import Question, credits_of, evenly, option_values
from blt.evals.noise import PAPER, disturb
from blt.evals.robustness import SEEDS, STRIDE
from blt.evals.rows import Measured, Options, Row, accuracy
from blt.lm import LanguageModel
from blt.machine.precision import autocast

CHANCE = 0.25  # of HellaSwag's four endings


def read_lines(path: Path, keys: Sequence[str]) -> list[dict[str, Any]]:
    """Objects of a ``.jsonl`` file, packed or not, or of all of them in a ``.zip``.

    Raises:
        UserError: unreadable, none in it, or a line without one of ``keys``; names file and line.
    """
    return [row for _, row in placed_lines(path, keys)]


def placed_lines(path: Path, keys: Sequence[str]) -> list[tuple[str, dict[str, Any]]]:
    """As :func:`read_lines`, each behind its place, ``FILE:LINE``; empty lines are passed over."""
    texts = _members(path) if path.suffix == ".zip" else {str(path): text_of(path)}
    found = []
    for name, text in texts.items():
        for number, line in enumerate(text.split("\n"), 1):
            if line.strip():
                place = f"{name}:{number}"
                found.append((place, _object(line, keys, place)))
    require(bool(found), f"{path}: nothing in it; name a .jsonl file, or a .zip of them")
    return found


def _members(path: Path) -> dict[str, str]:
    try:
        with zipfile.ZipFile(path) as archive:
            names = sorted(name for name in archive.namelist() if name.endswith(".jsonl"))
            return {f"{path}: {name}": archive.read(name).decode() for name in names}
    except (zipfile.BadZipFile, UnicodeDecodeError) as error:
        raise UserError(f"{path}: is no zip of .jsonl files ({error}); fetch it again") from None


def _object(line: str, keys: Sequence[str], where: str) -> dict[str, Any]:
    try:
        found = json.loads(line)
    except ValueError as error:
        raise UserError(f"{where}: is no JSON ({error})") from None
    missing = [key for key in keys if not isinstance(found, dict) or key not in found]
    require(not missing, f"{where}: has no {', '.join(missing)}")
    assert isinstance(found, dict)
    return found


def blimp(lm: LanguageModel, path: Path, options: Options) -> Iterator[Measured]:
    """Is the good sentence likelier than the bad one? A row for each field, and all together."""
    keys = ("sentence_good", "sentence_bad", "field", "UID")
    rows = evenly(read_lines(path, keys), options.limit)
    asked = [
        Question.plain(b"", [row["sentence_good"].encode(), row["sentence_bad"].encode()], 0)
        for row in rows
    ]
    with autocast(lm.device, options.dtype(lm)):
        found = credits_of(asked, option_values(lm, asked))
    names = sorted({row["UID"] for row in rows})
    strata = [names.index(row["UID"]) for row in rows]
    fields = [row["field"].replace("/", "_") for row in rows]  # one of two has both spellings
    for field in sorted(set(fields)):
        own = [index for index, other in enumerate(fields) if other == field]
        yield _pairs(field, [found[n] for n in own], [strata[n] for n in own])
    yield _pairs("all", found, strata)


def _pairs(field: str, credits: Sequence[float], strata: Sequence[int]) -> Measured:
    """So many pairs, drawn within their paradigms."""
    about: Row = {"field": field, "paradigms": len(set(strata))}
    return accuracy(about, credits, 0.5, strata)


def lambada(lm: LanguageModel, path: Path, options: Options) -> Iterator[Measured]:
    """The last word of each passage: is it what greedy generation would write? Its bits?"""
    texts = [row["text"] for row in evenly(read_lines(path, ("text",)), options.limit)]
    pairs = []
    for text in texts:
        before, _, word = text.rpartition(" ")
        pairs.append((before.encode(), f" {word}".encode()))
    with autocast(lm.device, options.dtype(lm)):
        scores = lm.score(pairs)
    greedy = [float(score.greedy) for score in scores]
    bits = [-score.log_p / math.log(2) for score in scores]
    sizes = [len(word) for _, word in pairs]
    for name, values, of in (
        ("accuracy, greedy", greedy, None),
        ("bits of the word", bits, None),
        ("bits per byte of it", bits, sizes),
    ):
        whole = len(values) if of is None else sum(of)
        row: Row = {"last word": name, "passages": len(pairs), "value": sum(values) / whole}
        yield Measured(row, "value", values, of)


@dataclass(frozen=True)
class Ending:
    """A question of HellaSwag."""

    context: str
    endings: tuple[str, ...]
    label: int


def hellaswag(lm: LanguageModel, path: Path, options: Options) -> Iterator[Measured]:
    """Which of four endings follows? Clean, and with the paper's five noises in the context."""
    rows = evenly(read_lines(path, ("ctx", "endings", "label")), options.limit)
    items = [Ending(row["ctx"], tuple(row["endings"]), int(row["label"])) for row in rows]
    clean = _noised(lm, items, None, options)
    yield clean
    if not options.noise:
        return
    found = []
    for name in PAPER:
        found.append(_noised(lm, items, name, options, clean))
        yield found[-1]
    means = [statistics.fmean(of) for of in zip(*(one.values for one in found), strict=True)]
    whole = statistics.fmean(one.row["acc_whole"] for one in found)
    yield _endings("mean of 5", means, whole, clean)


def _noised(
    lm: LanguageModel,
    items: Sequence[Ending],
    noise: str | None,
    options: Options,
    clean: Measured | None = None,
) -> Measured:
    """Accuracy with a noise in the contexts, the mean over its seeds."""
    seeds = range(SEEDS if noise is not None and PAPER[noise].random else 1)
    normed, whole = [], []
    for seed in seeds:
        asked = []
        for number, item in enumerate(items):
            context = item.context.encode()
            if noise is not None:
                context = disturb(context, noise, seed * STRIDE + number)
            endings = [f" {ending}".encode() for ending in item.endings]
            asked.append(Question.plain(context, endings, item.label))
        with autocast(lm.device, options.dtype(lm)):
            values = option_values(lm, asked)
        normed.append(credits_of(asked, values, per_byte=True))
        whole.append(statistics.fmean(credits_of(asked, values)))
    means = [statistics.fmean(of) for of in zip(*normed, strict=True)]
    return _endings(noise or "none", means, statistics.fmean(whole), clean)


def _endings(name: str, credits: Sequence[float], whole: float, clean: Measured | None) -> Measured:
    """A row of HellaSwag; ``robustness`` is H-Net's: what is left of the lead over chance, in %."""
    found = accuracy({"noise": name}, credits, CHANCE)
    acc = found.row["acc"]
    lead = (acc if clean is None else clean.row["acc"]) - CHANCE
    found.row["acc_whole"] = whole
    found.row["above_chance"] = (acc - CHANCE) / (1 - CHANCE)
    found.row["robustness"] = 100 * (acc - CHANCE) / lead if lead > 0 else None
    return found
