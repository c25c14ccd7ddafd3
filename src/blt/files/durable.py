"""What is written is whole after a kill, and still there after the power has failed.

A file or folder is written beside its place, brought to the disk, and then moved; the move is
brought to the disk as well. So at any moment the old or the new one is there, never a part.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

NEW = ".new"  # behind the name of what is being written


def is_left_over(path: Path) -> bool:
    """Is it a file that a kill has left before it took its place?"""
    return path.name.startswith(".") and path.name.endswith(NEW)


@contextmanager
def beside(path: Path) -> Iterator[Path]:
    """A place to write a file to; at the end it takes that of ``path``, after an error nothing."""
    new = path.with_name(f".{path.name}{NEW}")
    try:
        yield new
        replace(new, path)
    finally:
        new.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write a whole file, in place of one that may be there."""
    with beside(path) as new:
        new.write_text(text, encoding="utf-8")


def write_json(path: Path, data: Any, indent: int = 1) -> None:
    """Write a whole file of JSON, in place of one that may be there."""
    write_text(path, json.dumps(data, indent=indent) + "\n")


def replace(written: str | os.PathLike[str], place: str | os.PathLike[str]) -> None:
    """Move a file or folder that is complete to its place; on disk when this returns."""
    sync(Path(written))
    os.replace(written, place)
    sync_entries(Path(place).parent)


def sync(path: Path) -> None:
    """Bring a file, or a folder with all that is in it, to the disk."""
    if path.is_dir():
        for inside in path.iterdir():
            sync(inside)
        sync_entries(path)
    elif path.is_file():
        _sync(path, os.O_RDONLY)


def sync_entries(folder: Path) -> None:
    """Bring the names in a folder to the disk."""
    if hasattr(os, "O_DIRECTORY"):  # elsewhere folders cannot be opened
        _sync(folder, os.O_RDONLY | os.O_DIRECTORY)


def _sync(path: Path, flags: int) -> None:
    handle = os.open(path, flags)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
