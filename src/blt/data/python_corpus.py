"""A corpus that everybody has: the source and documentation of their own Python."""

from __future__ import annotations

import hashlib
import os
import sysconfig
from importlib import import_module
from pathlib import Path

from blt.errors import UserError

# Not the standard library, tests of it, or tables written by programs.
SKIPPED_FOLDERS = (
    *("dist-packages", "site-packages", "lib-dynload", "_bundled", "__pycache__", "__phello__"),
    *("idlelib", "lib2to3", "turtledemo", "test", "tests", "encodings", "pydoc_data"),
)
SKIPPED_FILES = ("_sysconfigdata", "_sysconfig_vars")  # hold this machine's paths


def python_corpus(max_bytes: int | None = None) -> list[bytes]:
    """Modules of the standard library and topics of ``help()``, one document each.

    Args:
        max_bytes: at most so many bytes; the last document is cut there.

    Returns:
        documents in an order that depends on their names alone and mixes both kinds, so that a
        limit leaves a fair sample.

    Raises:
        UserError: this Python came without its source.
    """
    named = {**_topics(), **_modules(Path(sysconfig.get_path("stdlib")))}
    documents: list[bytes] = []
    left = max_bytes if max_bytes is not None else sum(map(len, named.values()))
    for name in sorted(named, key=lambda name: hashlib.sha256(name.encode()).digest()):
        if left and named[name]:
            documents.append(named[name][:left])
            left -= len(documents[-1])
    if not documents:
        raise UserError(
            f"{sysconfig.get_path('stdlib')}: this Python came without its source; "
            "name a text of your own (blt demo --text FILE, or data.sources in a recipe)"
        )
    return documents


def _modules(folder: Path) -> dict[str, bytes]:
    modules = {}
    for root, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if name not in SKIPPED_FOLDERS]
        for name in names:
            path = Path(root, name)
            if path.suffix == ".py" and not name.startswith(SKIPPED_FILES) and path.is_file():
                modules[path.relative_to(folder).as_posix()] = path.read_bytes()
    return modules


def _topics() -> dict[str, bytes]:
    """What ``help("if")`` prints; some distributions leave it out."""
    try:
        topics: dict[str, str] = import_module("pydoc_data.topics").topics
    except (ImportError, AttributeError):
        return {}
    return {f"help({name})": text.encode() for name, text in topics.items()}
