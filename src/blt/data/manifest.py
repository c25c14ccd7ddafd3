"""manifest.json of prepared text: what it must hold."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from blt.errors import UserError
from blt.files.schema import Count, Inside, Schema, Sha256
from blt.files.strict_json import parse_object

FORMAT = "blt-shards-1"
MARKED_FORMAT = "blt-shards-2"  # some of the text is read only, which earlier versions cannot tell
MANIFEST = "manifest.json"
UNITS = "units"  # beside it: a folder for each unit of text, with its shards


class Shard(Schema, extra="forbid"):
    file: Inside
    split: Literal["train", "heldout"]
    rows: Count
    bytes: Count
    size: Count
    sha256: Sha256


class EntropyModel(Schema):
    name: str
    identity: str


class Options(Schema):
    newline_reset: bool


class Total(Schema):
    segments: Count
    bytes: Count


class Unit(Schema):
    broken_lines: list[str]


class Lengths(Schema):
    """Checksums of the files of lengths."""

    train: Sha256
    heldout: Sha256


class Left(Schema):
    """Files of one kind."""

    count: Count
    first: list[str]


class Manifest(Schema):
    options: Options
    entropy_model: EntropyModel | None
    documents: Count
    bytes: Count
    broken: Count
    splits: dict[Literal["train", "heldout"], Total]
    units: list[Unit]
    shards: list[Shard]
    # Earlier versions wrote none of these.
    lengths: Lengths | None = None
    left_out: dict[str, Left] = Field(default={})
    read_as_one_text: dict[str, Left] = Field(default={})
    cut_documents: Count = 0
    learn: Literal["all", "completions"] | None = None
    chat_template: str | None = None


def read_manifest(folder: Path) -> dict[str, Any]:
    """The manifest of a prepared folder, checked.

    Raises:
        UserError: missing, damaged, or of something else; names the key.
    """
    path = folder / MANIFEST
    way_out = "run blt prepare again: it goes on where it was"
    if not path.is_file():
        raise UserError(f"{path}: missing; {way_out}")
    manifest = parse_object(path.read_bytes(), str(path), way_out)
    if manifest.get("format") not in (FORMAT, MARKED_FORMAT):
        raise UserError(f"{path}: is not the manifest of a folder written by blt prepare")
    Manifest.check(manifest, str(path))
    return manifest
