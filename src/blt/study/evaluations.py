"""What the compared models are asked besides their bits: tasks of ``blt eval``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from blt.errors import named
from blt.evals.rows import Measured, Options
from blt.evals.tasks import check_options, check_paths, find_task
from blt.lm import LanguageModel
from blt.study.lines import Line, settings_of

FREE = ("name", "budgets", "beside")  # keys that change no line
OPTIONS = ("limit", "max_bytes", "typos", "generate", "zero_shot", "noise")
DIGITS = 6  # behind the point, of what a piece or question is worth


@dataclass(frozen=True)
class Evaluation:
    """A task, on what, and of which budgets' models.

    Raises:
        UserError: no such task, or what it cannot be asked; says what.
    """

    task: str
    paths: tuple[str, ...] = ()
    limit: int | None = None  # questions of each part
    max_bytes: int | None = None  # of text
    typos: str | None = None  # of noise: a file of misspellings
    generate: bool = False
    zero_shot: bool = False
    noise: bool = False
    budgets: tuple[float, ...] = ()  # at which; none: all
    beside: tuple[str, ...] = ()  # families that the others are compared with, on the same pieces
    name: str = ""  # left out: the task's

    def __post_init__(self) -> None:
        find_task(self.task)
        if not self.name:
            object.__setattr__(self, "name", self.task)
        with named(self.name):
            check_paths(self.task, self.paths)
            check_options(self.task, {name: getattr(self, name) for name in OPTIONS})

    @property
    def fixed(self) -> dict[str, Any]:
        """What all lines of one name must have in common."""
        return settings_of(self, FREE)

    @property
    def files(self) -> tuple[str, ...]:
        """What it reads."""
        return (*self.paths, *([] if self.typos is None else [self.typos]))

    @property
    def options(self) -> Options:
        """How the task is to measure."""
        typos = None if self.typos is None else Path(self.typos)
        return Options(
            max_bytes=self.max_bytes,
            limit=self.limit,
            typos=typos,
            generate=self.generate,
            zero_shot=self.zero_shot,
            noise=self.noise,
        )


def ask(one: Evaluation, model: LanguageModel) -> list[Line]:
    """Rows of the task, each with the pieces or questions that its main column is made of."""
    return [_kept(found) for found in find_task(one.task).rows(model, one.paths, one.options)]


def _kept(found: Measured) -> Line:
    """The row, its main column, and of each piece the value, the size and the document."""
    return {
        "row": found.row,
        "key": found.key,
        "values": _short(found.values),
        "sizes": None if found.sizes is None else _short(found.sizes),
        "strata": None if found.strata is None else list(found.strata),
    }


def _short(values: Sequence[float]) -> list[float]:
    """Whole numbers without a point: most questions are worth 0 or 1."""
    return [int(v) if v == int(v) else round(v, DIGITS) for v in map(float, values)]
