"""JSON from outside, read strictly: of bounded size and depth, no NaN, no key twice."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

from rich.filesize import decimal

from blt.errors import UserError

MAX_BYTES = 16 * 2**20  # a config has kilobytes, an index of 100,000 tensors has 8 megabytes
RESTORE = "restore it or save the model again"


def read_object(path: Path, way_out: str = RESTORE) -> dict[str, Any]:
    """The JSON object in a file.

    Raises:
        UserError: too large, not JSON, not an object; names the file.
    """
    size = path.stat().st_size
    if size > MAX_BYTES:
        raise UserError(
            f"{path}: {decimal(size)} of JSON, more than the {decimal(MAX_BYTES)} that are read"
        )
    return parse_object(path.read_bytes(), str(path), way_out)


def parse_object(data: bytes, where: str, way_out: str = RESTORE) -> dict[str, Any]:
    """The JSON object in ``data``; ``where`` opens every error message.

    Raises:
        UserError: not JSON, not an object.
    """
    try:
        found = json.loads(
            data, object_pairs_hook=_once, parse_constant=_finite, parse_float=_finite
        )
    except RecursionError:
        raise UserError(f"{where}: damaged (nested too deeply); {way_out}") from None
    except ValueError as error:  # of JSON, UTF-8 and numbers
        raise UserError(f"{where}: damaged ({error}); {way_out}") from None
    if not isinstance(found, dict):
        kind = type(found).__name__
        raise UserError(f"{where}: damaged (expected an object, got a {kind}); {way_out}")
    return found


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise ValueError(f"key {key!r} occurs twice")
        found[key] = value
    return found


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"{text} is not a number")
    return number
