"""Files below a folder or behind a glob: each once, and what is left out is counted."""

from __future__ import annotations

import glob
import os
import stat
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path

from blt.data.compressed import unreadable
from blt.data.left_out import Tally
from blt.data.written import folder_written_as, written_as
from blt.errors import UserError

REPEATED = "files named before"


class Found:
    """What has been come across so far.

    Attributes:
        left_out: what is not read.
    """

    def __init__(self, left_out: Tally | None = None) -> None:
        self.left_out = Tally() if left_out is None else left_out
        self._seen: set[object] = set()

    def first(self, path: str) -> bool:
        """Is it the first of its names under which a file is read? Links are followed."""
        about = os.stat(path)  # some file systems have no inodes
        return self.new((about.st_dev, about.st_ino or os.path.realpath(path)))

    def new(self, key: object) -> bool:
        """Has this not been asked before?"""
        new = key not in self._seen
        self._seen.add(key)
        return new

    def readable(self, path: str) -> bool:
        """Is this a file, and one that was not read before?"""
        kind = _kind(path)
        if kind is None and not self.first(path):
            kind = REPEATED
        if kind is not None:
            self.left_out.add(kind, path)
        return kind is None


def below(folder: str, found: Found, takes_all: bool = False) -> Iterator[str]:
    """Files of a folder by name, then those of its subfolders; links are followed, once each.

    Args:
        takes_all: also of folders that programs wrote.

    Raises:
        UserError: unreadable, or written by a program that writes no text.
    """
    here = None if takes_all else folder_written_as(folder)
    if here is not None:
        raise UserError(f"{folder}: is {here[0]}, not text; {here[1]}")
    for _, files in _walk("" if folder == "." else folder, found, takes_all):
        yield from (path for path in files if found.readable(path))


def behind(pattern: str, found: Found, takes_all: bool = False) -> Iterator[str]:
    """Files that a glob matches, in the order of their names; ``takes_all``: as of :func:`below`.

    Raises:
        UserError: it matches nothing.
    """
    matches = sorted(set(_matches(pattern, found, takes_all)))
    if not matches:
        raise UserError(f"{pattern}: no such file or folder; check the path")
    writer_of = lru_cache(folder_written_as)
    for match in matches:
        if os.path.isdir(match):
            if "**" not in pattern:  # which names every folder
                found.left_out.add("folders", match)
        elif not takes_all and (writer := writer_of(os.path.dirname(match))) is not None:
            found.left_out.add(f"files of folders that are {writer[0]}", match)
        elif found.readable(match):
            yield match


def _matches(pattern: str, found: Found, takes_all: bool) -> Iterator[str]:
    """What ``glob.glob`` finds, but it goes round in loops of links."""
    parts = pattern.split("/")
    if "**" not in parts:
        yield from glob.glob(pattern)
        return
    at = parts.index("**")
    head, tail = "/".join(parts[:at]), "/".join(parts[at + 1 :])
    head = "/" if at and not head else head
    for root in glob.glob(head) if head else [""]:
        if os.path.isdir(root or "."):
            for folder, files in _walk(root, found, takes_all):
                below_it = os.path.join(glob.escape(folder), tail)
                yield from _matches(below_it, Found(), takes_all) if tail else files


def _walk(root: str, found: Found, takes_all: bool) -> Iterator[tuple[str, list[str]]]:
    """Folders from ``root`` downwards, each once, with their files; hidden ones are left out."""
    folders = Found()
    for above in Path(root).resolve().parents:
        folders.first(str(above))  # a link back there would lead to what was not named
    waiting = [root]
    while waiting:
        folder = waiting.pop()
        if not folders.first(folder or "."):
            found.left_out.add("links to folders above or read before", folder)
            continue
        try:
            entries = sorted(os.scandir(folder or "."), key=lambda entry: entry.name)
        except OSError as error:
            unreadable(error)
        writer = None if takes_all else written_as({entry.name for entry in entries})
        if writer is not None:
            found.left_out.add(f"folders that are {writer[0]}", folder or ".")
            continue
        files, inside = list[str](), list[str]()
        for entry in entries:
            path = os.path.join(folder, entry.name)
            if _ignored(entry.name):
                found.left_out.add("hidden", path)
            else:
                (inside if os.path.isdir(path) else files).append(path)
        yield folder, files
        waiting.extend(reversed(inside))


def _kind(path: str) -> str | None:
    """Why something is not a file that can be read; None where it is one."""
    try:
        mode = os.stat(path).st_mode
    except OSError as error:
        if os.path.islink(path):
            return "dangling links"
        unreadable(error)
    return None if stat.S_ISREG(mode) else "special files"


def _ignored(name: str) -> bool:
    return name.startswith(".") or name == "__pycache__"


def require_file(path: Path) -> None:
    """Refuse a pipe or device, which cannot be read a second time.

    Raises:
        UserError: says the way out.
    """
    if not path.is_file():
        raise UserError(f"{path}: is not a regular file; write what comes from it into one")
