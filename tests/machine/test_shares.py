"""The share of the peak that is expected is one that was measured, or lies between two."""

from __future__ import annotations

import datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from blt.machine import shares
from blt.machine.hardware import KINDS
from blt.machine.shares import ASSUMED, Share, expected_share

PEAK = KINDS["H100"].flops


def row(device: str, ids: int, mfu: float, **changes: Any) -> dict[str, Any]:
    """Of a model with a gigaflop per byte."""
    speed = mfu * KINDS[device].flops / 1e9
    made = {"device": device, "date": "2026-01-01", "torch": "2.11", "job": "training, a model"}
    return made | {"ids": ids, "patch_size": 4.5, "bytes_per_second": speed, "mfu": mfu} | changes


@pytest.fixture
def rows(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    monkeypatch.setattr(shares, "_rows", lambda: found)
    return found


def test_every_row_in_the_package_says_what_was_measured_where_and_when() -> None:
    for found in shares._rows():
        assert found["device"] in KINDS
        datetime.date.fromisoformat(found["date"])
        assert found["torch"]
        assert found["job"]
        assert 0 < found["mfu"] < 1
        assert min(found["ids"], found["patch_size"], found["bytes_per_second"]) > 0


def test_a_pass_that_was_measured_has_its_share_and_the_source_says_so(
    rows: list[dict[str, Any]],
) -> None:
    rows += [row("H100", 1000, 0.1), row("H100", 4000, 0.2), row("A100", 1000, 0.5)]
    found = expected_share("H100", 1.01e12)
    assert found == Share(0.1, "measured on H100, 2026-01-01, torch 2.11 (training, a model, "
                          "1000 ids)")  # fmt: skip
    assert expected_share("A100", 1e12).mfu == 0.5


def test_between_two_the_share_is_between_and_outside_it_is_that_of_the_end(
    rows: list[dict[str, Any]],
) -> None:
    rows += [row("H100", 1000, 0.1), row("H100", 4000, 0.4)]
    assert expected_share("H100", 2e12).mfu == pytest.approx(0.2)  # the middle, in logarithms
    assert "between" in expected_share("H100", 2e12).source
    small = expected_share("H100", 1e11)
    assert small.mfu == pytest.approx(0.01)  # takes as long as a pass ten times its size
    assert "takes as long" in small.source
    assert expected_share("H100", 1e15).mfu == 0.4
    assert "smaller pass" in expected_share("H100", 1e15).source


def test_compiled_and_plain_steps_are_expected_as_such_where_both_were_measured(
    rows: list[dict[str, Any]],
) -> None:
    rows += [row("H100", 1000, 0.4), {**row("H100", 2000, 0.2)}]
    rows[1]["job"] += shares.PLAIN
    assert expected_share("H100", 2e12, True).mfu == 0.4
    assert expected_share("H100", 1e12, False).mfu == pytest.approx(0.1)
    assert expected_share("H100", 2e12).mfu == 0.2
    del rows[0]
    assert expected_share("H100", 2e12, True).mfu == 0.2  # better than nothing


def test_of_the_same_work_the_same_device_counts_and_then_the_newer_row(
    rows: list[dict[str, Any]],
) -> None:
    rows += [
        row("H200", 1000, 0.3),
        row("H100", 1000, 0.2, date="2026-02-01"),
        row("H100", 1000, 0.1),
    ]
    assert expected_share("H100", 1e12).mfu == 0.2
    assert expected_share("H200", 1e12).mfu == 0.3
    del rows[0]
    assert expected_share("H200", 1e12).mfu == 0.2  # the same chip
    assert "H100" in expected_share("H200", 1e12).source


def test_of_the_same_work_what_was_compiled_counts(rows: list[dict[str, Any]]) -> None:
    rows += [
        row("H200", 1000, 0.3),
        row("H100", 1000, 0.2, date="2026-02-01", job="training, a model, not compiled"),
    ]
    assert expected_share("H100", 1e12).mfu == 0.3
    assert expected_share("H200", 1e12).mfu == 0.3


def test_where_nothing_was_measured_the_share_is_assumed(rows: list[dict[str, Any]]) -> None:
    rows += [row("H100", 1000, 0.1, job="decoding"), row("H100", 1000, 0.2, other="key")]
    for device in ("A100", "laptop", None):
        assert expected_share(device, 1e12).mfu == ASSUMED
        assert "assumed" in expected_share(device, 1e12).source
    assert expected_share("H100", 1e12).mfu == 0.2


@given(st.floats(9, 18))
def test_the_share_is_one_wherever_the_pass_lies(size: float) -> None:
    highest = max(found["mfu"] for found in shares._rows())
    assert 0 < expected_share("H100", 10**size).mfu <= highest
