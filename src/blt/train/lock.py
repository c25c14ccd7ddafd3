"""One program at a time in a folder."""

from __future__ import annotations

from pathlib import Path

from filelock import BaseFileLock, FileLock, Timeout

from blt.errors import UserError

LOCK = ".lock"


def hold(folder: Path) -> BaseFileLock:
    """Keep other programs from training in ``folder`` while the returned lock is there.

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
            f"{folder}: is being trained in by another program; wait for its end, or choose "
            "another folder"
        ) from None
    return lock
