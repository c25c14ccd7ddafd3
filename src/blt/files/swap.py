"""Two folders change places in one step of the file system: no moment has neither."""

from __future__ import annotations

import ctypes
import os
import sys
from pathlib import Path

AT_FDCWD, RENAME_EXCHANGE = -100, 2  # Linux: fcntl.h, stdio.h
RENAME_SWAP = 2  # macOS: stdio.h


def exchange(a: Path, b: Path) -> bool:
    """Let ``a`` and ``b``, which both exist, change places; False where that cannot be done."""
    try:
        libc = ctypes.CDLL(None, use_errno=True)
        first, second = os.fsencode(a), os.fsencode(b)
        if sys.platform == "darwin":
            return bool(libc.renamex_np(first, second, RENAME_SWAP) == 0)
        return bool(libc.renameat2(AT_FDCWD, first, AT_FDCWD, second, RENAME_EXCHANGE) == 0)
    except (AttributeError, OSError, TypeError):  # another system or C library
        return False
