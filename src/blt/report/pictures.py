"""Pictures for people, as files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from blt.files import durable

DPI = 150


def save_picture(figure: Any, path: Path) -> Path:
    """Write a figure of matplotlib, whole or not at all, in the format that its name ends with."""
    with durable.beside(path) as new:
        figure.savefig(new, dpi=DPI, format=path.suffix.removeprefix("."))
    return path
