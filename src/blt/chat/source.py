"""Where a model folder keeps its chat template, as transformers has it."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

from rich.filesize import decimal

from blt.errors import UserError, require
from blt.files import checksums, durable
from blt.files.strict_json import read_object

TEMPLATE = "chat_template.jinja"
TOKENIZER_CONFIG, KEY = "tokenizer_config.json", "chat_template"
MAX_BYTES = 2**18  # of a template: ten times the longest that models have


class Source(NamedTuple):
    """The text of a template."""

    text: str
    where: str  # its file, for messages


def read_source(folder: Path) -> Source | None:
    """The template in a folder: ``chat_template.jinja``, else that in ``tokenizer_config.json``.

    Raises:
        UserError: too long, not UTF-8, or no text; names the file.
    """
    if (folder / TEMPLATE).is_file():
        return read_file(folder / TEMPLATE)
    path = folder / TOKENIZER_CONFIG
    config = read_object(path, "restore it") if path.is_file() else {}
    found = _default_of(config.get(KEY))
    return None if found is None else check(found, f"{path}: {KEY}")


def read_file(path: Path) -> Source:
    """A template in a file of its own.

    Raises:
        UserError: too long, or not UTF-8.
    """
    with path.open("rb") as file:
        data = file.read(MAX_BYTES + 1)
    try:
        return check(data.decode(), str(path))
    except UnicodeDecodeError as error:
        cut = len(data) > MAX_BYTES
        reason = _too_long() if cut else f"is not UTF-8, at byte {error.start}"
        raise UserError(f"{path}: {reason}") from None


def write_source(folder: Path, text: str) -> None:
    """Put a template into a model folder, whole or not at all."""
    with checksums.changing(folder, TEMPLATE):
        durable.write_text(folder / TEMPLATE, text)


def check(text: Any, where: str) -> Source:
    require(isinstance(text, str), f"{where}: must be text, got {type(text).__name__}")
    require(len(text.encode("utf-8", "replace")) <= MAX_BYTES, f"{where}: {_too_long()}")
    return Source(text, where)


def _default_of(found: Any) -> Any:
    """Of several named templates, the one called default."""
    if not isinstance(found, list):
        return found
    named = [one for one in found if isinstance(one, dict) and one.get("name") == "default"]
    return named[0].get("template") if named else None


def _too_long() -> str:
    return f"is longer than the {decimal(MAX_BYTES)} that are read of a chat template"
