"""A run that is trained again is close to what was published, or gives up as that did."""

from __future__ import annotations

from typing import Any

import pytest

from tools.retrain import came_out_alike, compared


def _line(bits: dict[str, float | None]) -> dict[str, Any]:
    known = [value for value in bits.values() if value is not None]
    mean = sum(known) / len(known) if known else None
    return {"name": "run", "validation": bits, "validation_bits": mean, "bytes_seen": 9}


@pytest.mark.parametrize(
    ("before", "now", "apart", "gave_up", "alike"),
    [
        ({"a": 2.0, "b": 3.0}, {"a": 2.0, "b": 3.0004}, 0.0004, None, True),
        ({"a": 2.0, "b": 3.0}, {"a": 2.0, "b": 3.002}, 0.002, None, False),
        ({}, {}, None, ["published", "again"], True),
        ({}, {"a": 2.0}, None, ["published"], False),
        ({"a": 2.0}, {}, None, ["again"], False),
        ({"a": None}, {"a": None}, None, ["published", "again"], True),
    ],
)
def test_a_run_that_gave_up_is_compared_too(
    before: dict[str, float | None],
    now: dict[str, float | None],
    apart: float | None,
    gave_up: list[str] | None,
    alike: bool,
) -> None:
    line = compared(_line(before), _line(now), 1)
    assert line["source_apart"] == (None if apart is None else pytest.approx(apart))
    assert line.get("gave_up") == gave_up
    assert came_out_alike(line) is alike
