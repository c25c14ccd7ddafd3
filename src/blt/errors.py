"""The one exception that a user's mistake or a damaged file ends in, and checks that raise it."""

from __future__ import annotations

import difflib
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
from os import PathLike
from typing import Any


class UserError(ValueError):
    """What is wrong, where, and the way out, in one message; the command line exits with 2."""


@contextmanager
def named(where: str) -> Iterator[None]:
    """Put ``where`` (a file and key) in front of what goes wrong inside."""
    try:
        yield
    except UserError as error:
        raise UserError(f"{where}: {error}") from error.__cause__


def require(holds: bool, message: str) -> None:
    """Raise a UserError with ``message`` unless ``holds``."""
    if not holds:
        raise UserError(message)


def first_line(error: BaseException) -> str:
    """What went wrong in one line; its kind, where it has no words."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def require_whole(name: str, value: Any, least: int) -> None:
    """An int of at least ``least``; a bool is none."""
    whole = isinstance(value, int) and not isinstance(value, bool)
    require(whole, f"{name} must be a whole number, got {value!r}")
    require(value >= least, f"{name} must be at least {least}, got {value}")


def require_number(name: str, value: Any) -> None:
    """A finite int or float."""
    number = isinstance(value, int | float) and not isinstance(value, bool)
    # Not by math.isfinite, which raises OverflowError of whole numbers beyond what a float holds.
    finite = number and abs(value) <= sys.float_info.max
    require(finite, f"{name} must be a number, got {value!r:.40}")


def require_within(name: str, value: Any, least: float, most: float) -> None:
    """A number from ``least`` to ``most``; a whole one, where ``least`` is an int."""
    if isinstance(least, int):
        require_whole(name, value, least)
    require_number(name, value)
    require(least <= value <= most, f"{name} must be {least} to {most}, got {value}")


def require_list(name: str, value: Any) -> None:
    """Several names, not a single one: its letters would be taken for names."""
    single = isinstance(value, str | bytes | PathLike)
    require(not single, f"{name}: is a single name; give a list, [{str(value)!r}]")


def how_to_install(extra: str) -> str:
    """The command that brings what an extra needs: the end of an error's message."""
    return f"pip install '.[{extra}]' in blt's source folder"


def needed(module: str, extra: str, why: str | None = None) -> Any:
    """A module that an extra brings; ``why`` it is needed opens the message where it is missing.

    Raises:
        UserError: it is not installed; says how to get it.
    """
    try:
        return import_module(module)
    except ImportError:
        why = why or f"this needs {module.partition('.')[0]}; install it with"
        raise UserError(f"{why}: {how_to_install(extra)}") from None


def nearest(name: str, known: Sequence[str]) -> str:
    """What may have been meant by an unknown name: the end of an error's message."""
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    return f"did you mean {close[0]!r}?" if close else f"known: {', '.join(known)}"
