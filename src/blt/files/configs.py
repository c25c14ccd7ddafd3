"""Strict reading and writing of dataclass configs: every mistake names its key and the nearest."""

from __future__ import annotations

import dataclasses
import json
import math
import reprlib
from functools import cache
from typing import Any, TypeVar, get_args, get_type_hints

from pydantic import TypeAdapter, ValidationError

from blt.errors import UserError, nearest

T = TypeVar("T")
NOTHING_GIVEN = ("missing", "value_error")  # pydantic's errors whose input says nothing more


def from_dict(cls: type[T], data: dict[str, Any], where: str) -> T:
    """Build dataclass ``cls`` from plain data; ``where`` (a file) opens every error message.

    Raises:
        UserError: unknown key (names the nearest known one), wrong type, impossible value.
    """
    _forbid_unknown(cls, data, where, "")
    _forbid_infinite(data, where, "")
    try:
        # As JSON, strict mode still takes lists for tuples and whole numbers for floats.
        adapter: TypeAdapter[T] = _adapter(cls)  # type: ignore[arg-type]  # classes have hashes
        return adapter.validate_json(json.dumps(data), strict=True)
    except ValidationError as error:
        raise UserError(f"{where}: {first_error(error)}") from None
    except (TypeError, ValueError, RecursionError) as error:
        raise UserError(f"{where}: {error}") from None


@cache
def _adapter(cls: type[Any]) -> TypeAdapter[Any]:
    """Made once: that takes longer than to use it."""
    return TypeAdapter(cls)


def first_error(error: ValidationError) -> str:
    """The first of pydantic's errors in one line: key, reason, and what was given."""
    first = error.errors()[0]
    key = ".".join(str(part) for part in first["loc"])
    reason = first["msg"].removeprefix("Value error, ")
    given = "" if first["type"] in NOTHING_GIVEN else f", got {reprlib.repr(first['input'])}"
    return f"{key + ': ' if key else ''}{reason}{given}"


def to_dict(config: Any, *, keep_none: bool = True) -> dict[str, Any]:
    """Plain data of a dataclass, tuples as lists; TOML, which has no None, leaves it out."""
    return {
        field.name: _plain(value, keep_none)
        for field in dataclasses.fields(config)
        if (value := getattr(config, field.name)) is not None or keep_none
    }


def _plain(value: Any, keep_none: bool) -> Any:
    if dataclasses.is_dataclass(value):
        return to_dict(value, keep_none=keep_none)
    if isinstance(value, tuple | list):
        return [_plain(item, keep_none) for item in value]
    return value


def _forbid_unknown(cls: Any, data: Any, where: str, prefix: str) -> None:
    """Walk nested dataclasses; pydantic ignores keys that a plain dataclass does not have."""
    if not isinstance(data, dict):
        return
    hints = _hints(cls)
    for key, value in data.items():
        if key not in hints:
            inner = [name for name in _dotted(cls) if name.endswith(f".{key}")]
            hint = f"did you mean {prefix + inner[0]!r}?" if inner else nearest(key, list(hints))
            raise UserError(f"{where}: unknown key {prefix + key!r}; {hint}")
        for nested in (hints[key], *get_args(hints[key])):
            if dataclasses.is_dataclass(nested):
                for one in value if isinstance(value, list) else [value]:
                    _forbid_unknown(nested, one, where, f"{prefix}{key}.")
        for nested in get_args(hints[key]):
            for table in get_args(nested):
                if dataclasses.is_dataclass(table):
                    _check_tables(table, value, where, f"{prefix}{key}")


def _check_tables(cls: Any, values: Any, where: str, prefix: str) -> None:
    """Tables beside strings in a list, of which pydantic would say that they are no strings."""
    for number, value in enumerate(values if isinstance(values, list) else ()):
        if isinstance(value, dict):
            from_dict(cls, value, f"{where}: {prefix}.{number}")


@cache
def _hints(cls: Any) -> dict[str, Any]:
    """Types of the fields of a dataclass, by name; looked up once: it takes a millisecond."""
    hints = get_type_hints(cls)
    return {field.name: hints[field.name] for field in dataclasses.fields(cls)}


def _dotted(cls: Any) -> list[str]:
    """Names of all fields, those of nested dataclasses behind a dot."""
    names = []
    for name, hint in _hints(cls).items():
        names.append(name)
        for nested in (hint, *get_args(hint)):
            if dataclasses.is_dataclass(nested):
                names += [f"{name}.{inner}" for inner in _dotted(nested)]
    return names


def _forbid_infinite(data: Any, where: str, key: str) -> None:
    """TOML has inf and nan, which no number of a config may be."""
    if isinstance(data, float) and not math.isfinite(data):
        raise UserError(f"{where}: {key}: must be a finite number, got {data}")
    if isinstance(data, dict):
        for name, value in data.items():
            _forbid_infinite(value, where, f"{key}.{name}" if key else str(name))
    elif isinstance(data, list | tuple):
        for value in data:
            _forbid_infinite(value, where, key)
