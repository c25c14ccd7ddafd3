"""One program at a time in a run folder."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path
from typing import IO

from blt.errors import UserError

LOCK = ".lock"


def hold(folder: Path) -> IO[str]:
    """Keep other programs from training in ``folder`` while the returned file is open.

    The system lets go when the program ends, however it ends; the file may stay.

    Raises:
        UserError: another program holds it.
    """
    file = (folder / LOCK).open("a+")
    try:
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):
        file.seek(0)
        raise UserError(
            f"{folder}: is being trained in by another program (process {file.read()}); wait for "
            "its end, or choose another folder"
        ) from None
    except OSError:  # a file system without locks
        return file
    file.truncate(0)
    file.write(str(os.getpid()))
    file.flush()
    return file
