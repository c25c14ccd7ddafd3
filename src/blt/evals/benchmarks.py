"""BLiMP, LAMBADA and HellaSwag from their authors' files, by likelihood, with intervals."""

from __future__ import annotations

import json
import math
import statistics
import zipfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from blt.data.compressed import text_of, unreadable
from blt.errors import UserError, require
from blt.evals.choices import Question, credits_of, evenly, option_values
from blt.evals.noise import PAPER, disturb
from blt.evals.robustness import SEEDS, STRIDE
from blt.evals.rows import Measured, Options, Row, accuracy
from blt.lm import LanguageModel
from blt.machine.precision import autocast

PAIR = ("sentence_good", "sentence_bad", "field", "UID")  # keys of a line of BLiMP
ENDINGS = 4  # of a question of HellaSwag
CHANCE = 1 / ENDINGS


def placed_lines(path: Path, keys: Sequence[str]) -> list[tuple[str, dict[str, Any]]]:
    """Objects of a ``.jsonl`` file, packed or not, or of all of them in a ``.zip``; each behind
    its place, ``FILE:LINE``. Empty lines are passed over.

    Raises:
        UserError: unreadable, none in it, or a line without one of ``keys``; names file and line.
    """
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
    # RuntimeError: encrypted, or packed in a way that Python cannot unpack.
    except (zipfile.BadZipFile, UnicodeDecodeError, zlib.error, RuntimeError) as error:
        raise UserError(f"{path}: is no zip of .jsonl files ({error}); fetch it again") from None
    except OSError as error:
        unreadable(error)


def _object(line: str, keys: Sequence[str], where: str) -> dict[str, Any]:
    try:
        found = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{where}: is no JSON ({error})") from None
    missing = [key for key in keys if not isinstance(found, dict) or key not in found]
    require(not missing, f"{where}: has no {', '.join(missing)}")
    assert isinstance(found, dict)
    return found


def string(row: Mapping[str, Any], key: str, place: str) -> str:
    """The text of a line under a key that it has.

    Raises:
        UserError: something else, nothing, or what UTF-8 cannot say; names place and key.
    """
    return _string(row[key], f"{place}: {key!r}")


def _string(value: Any, where: str) -> str:
    require(isinstance(value, str) and bool(value), f"{where} must be a string, and not empty")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise UserError(f"{where} has half a surrogate pair, which UTF-8 has not") from None
    return str(value)


def blimp(lm: LanguageModel, path: Path, options: Options) -> Iterator[Measured]:
    """Is the good sentence likelier than the bad one? A row for each field, and all together."""
    lines = placed_lines(path, PAIR)
    pairs = [{key: string(row, key, place) for key in PAIR} for place, row in lines]
    rows = evenly(pairs, options.limit)
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
    texts = [string(row, "text", place) for place, row in placed_lines(path, ("text",))]
    pairs = []
    for text in evenly(texts, options.limit):
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

    @classmethod
    def read(cls, row: Mapping[str, Any], place: str) -> Ending:
        """That of a line.

        Raises:
            UserError: not four endings, or none that is right; names place and key.
        """
        endings, label = row["endings"], row["label"]
        four = isinstance(endings, list) and len(endings) == ENDINGS
        require(four, f"{place}: 'endings' must be a list of {ENDINGS} strings")
        texts = tuple(_string(one, f"{place}: each of 'endings'") for one in endings)
        way_out = "name a file with answers, such as that of the validation split"
        known = str(label) in map(str, range(ENDINGS))
        require(known, f"{place}: 'label' must be 0 to {ENDINGS - 1}, got {label!r}; {way_out}")
        return cls(string(row, "ctx", place), texts, int(label))


def hellaswag(lm: LanguageModel, path: Path, options: Options) -> Iterator[Measured]:
    """Which of four endings follows? Clean, and with the paper's five noises in the context."""
    lines = placed_lines(path, ("ctx", "endings", "label"))
    items = evenly([Ending.read(row, place) for place, row in lines], options.limit)
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
