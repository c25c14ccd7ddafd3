"""One program at a time in a folder."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import BaseFileLock, FileLock, Timeout

from blt.errors import UserError
from blt.files import durable

LOCK = ".lock"  # no content of the folder, and hidden from whoever reads text there


def hold(folder: Path) -> BaseFileLock:
    """Keep other programs from writing into ``folder`` while the returned lock is there.

    The system lets go when the program ends, however it ends; the file may stay.

    Raises:
        UserError: another program holds it.
    """
    # One object for all runs of this process: after an error, it may take the folder again.
    lock = FileLock(folder / LOCK, timeout=0, is_singleton=True)
    try:
        lock.acquire()
    except Timeout:
        raise UserError(
            f"{folder}: is being written into by another program; wait for its end, or choose "
            "another folder"
        ) from None
    return lock


def holds_nothing(folder: Path) -> bool:
    """Is there nothing in it but what a killed program leaves before it has written anything?"""
    return all(path.name == LOCK or durable.is_left_over(path) for path in folder.iterdir())


@contextmanager
def held(folder: Path) -> Iterator[None]:
    """The same inside a ``with`` block, and free again behind it."""
    lock = hold(folder)
    try:
        yield
    finally:
        lock.release()
