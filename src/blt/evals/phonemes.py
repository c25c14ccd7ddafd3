"""Grapheme to phoneme: what does a word sound like? SIGMORPHON's shared task of 2021."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from pathlib import Path

from blt.errors import UserError, require
from blt.evals.answers import write
from blt.evals.choices import evenly
from blt.evals.lines import lines_of
from blt.evals.rows import Measured, Options, Row, mean_of, with_edges
from blt.lm import LanguageModel
from blt.machine.precision import autocast

SHOTS = 8  # solved words in front, at equal distances in the training file
TRAIN, TEST = "_train.tsv", "_test.tsv"

Word = tuple[str, str]  # its letters; its phonemes, with spaces between


def read_words(path: Path) -> list[Word]:
    """Words and their phonemes, told apart by a tab.

    Raises:
        UserError: unreadable, empty, or a line of another kind; names it.
    """
    found = []
    for number, line in enumerate(lines_of(path), 1):
        word, tab, sounds = line.partition("\t")
        require(bool(tab and word and sounds.strip()), f"{path}:{number}: no word, tab, phonemes")
        found.append((word, sounds.strip()))
    require(bool(found), f"{path}: nothing in it")
    return found


def read_folder(folder: Path) -> dict[str, tuple[list[Word], list[Word]]]:
    """Training and test words of each language, from ``LANGUAGE_train.tsv`` and ``_test.tsv``.

    Raises:
        UserError: no such files, two of a language, a test without its training words; or as of
            :func:`read_words`.
    """
    tests = sorted(folder.rglob(f"*{TEST}*"), key=lambda path: path.name)
    if not tests:
        raise UserError(f"{folder}: no LANGUAGE{TEST} in it; name the folder of SIGMORPHON's data")
    found = {}
    for path in tests:
        language = path.name.split(TEST)[0]
        require(language not in found, f"{path}: a second file of {language!r}; leave one of them")
        train = sorted(path.parent.glob(f"{language}{TRAIN}*"))  # packed as it may be
        require(bool(train), f"{path}: no {language}{TRAIN} beside it, for the examples")
        require(len(train) == 1, f"{train[-1]}: a second file of {language!r}; leave one of them")
        found[language] = (read_words(train[0]), read_words(path))
    return found


def rows(lm: LanguageModel, folder: Path, options: Options) -> Iterator[Measured]:
    """A row for each language, and the mean in which each language counts the same."""
    found = []
    for language, (train, test) in read_folder(folder).items():
        shots = evenly(train, SHOTS)
        found.append(_language(lm, language, shots, evenly(test, options.limit), options))
        yield found[-1]
    yield mean_of("mean", found)


def _language(
    lm: LanguageModel,
    language: str,
    shots: Sequence[Word],
    words: Sequence[Word],
    options: Options,
) -> Measured:
    examples = "".join(f"{word}: {sounds}\n" for word, sounds in shots)
    asked = [f"{examples}{word}:".encode() for word, _ in words]
    answers = [f" {sounds}\n".encode() for _, sounds in words]
    with autocast(lm.device, options.dtype(lm)):
        scores = lm.log_likelihoods(list(zip(asked, answers, strict=True)))
    bits, sizes = [-log_p / math.log(2) for log_p in scores], list(map(len, answers))
    row: Row = {"language": language, "words": len(words), "bits_per_byte": sum(bits) / sum(sizes)}
    if options.generate:
        row |= _written(lm, asked, [sounds for _, sounds in words])
    return Measured(row, "bits_per_byte", bits, sizes)


def _written(lm: LanguageModel, asked: Sequence[bytes], answers: Sequence[str]) -> Row:
    """What the model writes greedily up to the end of the line: wrong words, wrong phonemes."""
    found = write(lm, asked, answers, str.split, "\n")
    exact = with_edges("exact", found.right)
    return exact | with_edges("phoneme_errors", found.errors, found.sizes)
