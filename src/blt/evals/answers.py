"""Questions whose answers are known: does the model write them, to the byte?"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from blt.errors import require
from blt.evals.benchmarks import placed_lines, string
from blt.evals.choices import evenly
from blt.evals.rows import Measured, Options, Row, mean_of
from blt.lm import LanguageModel
from blt.machine.precision import autocast

PROMPT, COMPLETION, KIND = "prompt", "completion", "kind"
ROOM = 8  # bytes more than the longest answer


class Asked(NamedTuple):
    """A question and its answer, as models are fine-tuned on them: end to end."""

    prompt: str
    completion: str


class Written(NamedTuple):
    """What a model wrote, question by question."""

    right: list[float]  # 1 where it is the answer, else 0
    errors: list[int]  # units inserted, left out or replaced
    sizes: list[int]  # units of the answer


def read_questions(paths: Sequence[str]) -> dict[str, list[Asked]]:
    """Questions of ``.jsonl`` files, by their kind; of those that name none, the file's name.

    Raises:
        UserError: unreadable, or a row without a prompt and an answer; names file and line.
    """
    found: dict[str, list[Asked]] = {}
    for path in map(Path, paths):
        for place, row in placed_lines(path, (PROMPT, COMPLETION)):
            asked = Asked(*(string(row, key, place) for key in (PROMPT, COMPLETION)))
            kind = row.get(KIND, path.name)
            require(isinstance(kind, str), f"{place}: {KIND!r} must be a string")
            found.setdefault(kind, []).append(asked)
    return found


def rows(lm: LanguageModel, paths: Sequence[str], options: Options) -> Iterator[Measured]:
    """A row for each kind of question, and the mean in which each kind counts the same."""
    found = []
    for kind, questions in read_questions(paths).items():
        found.append(_kind(lm, kind, evenly(questions, options.limit), options))
        yield found[-1]
    if len(found) > 1:
        yield mean_of("mean", found)


def _kind(lm: LanguageModel, kind: str, asked: Sequence[Asked], options: Options) -> Measured:
    prompts = [one.prompt.encode() for one in asked]
    answers = [one.completion for one in asked]
    with autocast(lm.device, options.dtype(lm)):
        pairs = [(p, a.encode()) for p, a in zip(prompts, answers, strict=True)]
        nats = -sum(lm.log_likelihoods(pairs))
    found = write(lm, prompts, answers, list)
    row: Row = {
        "kind": kind,
        "questions": len(asked),
        "exact": sum(found.right) / len(asked),
        "character_errors": sum(found.errors) / sum(found.sizes),
        "bits_per_byte": nats / math.log(2) / sum(len(answer) for _, answer in pairs),
    }
    return Measured(row, "exact", found.right)


def write(
    lm: LanguageModel,
    prompts: Sequence[bytes],
    answers: Sequence[str],
    units: Callable[[str], Sequence[str]],
    stop: str | tuple[()] = (),
) -> Written:
    """What the model writes greedily after each prompt, up to the end of the document.

    Args:
        units: of an answer, that errors are counted in: ``list`` for characters, ``str.split``.
        stop: ends an answer too.
    """
    longest = max(len(answer.encode()) for answer in answers)
    results = lm.generate(list(prompts), max_bytes=longest + ROOM, stop=stop)
    texts = [result.data.decode("utf-8", "replace") for result in results]
    pairs = [(units(text), units(answer)) for text, answer in zip(texts, answers, strict=True)]
    return Written(
        [float(text == answer) for text, answer in pairs],
        [distance(text, answer) for text, answer in pairs],
        [len(answer) for _, answer in pairs],
    )


def distance(one: Sequence[str], other: Sequence[str]) -> int:
    """Insertions, deletions and substitutions from one to the other (Levenshtein)."""
    row = list(range(len(other) + 1))
    for number, a in enumerate(one, 1):
        before, row[0] = row[0], number
        for at, b in enumerate(other, 1):
            before, row[at] = row[at], min(row[at] + 1, row[at - 1] + 1, before + (a != b))
    return row[-1]
