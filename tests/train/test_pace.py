"""A training far slower than ``blt plan`` expects says so, once, and why that may be."""

from __future__ import annotations

import os
from dataclasses import replace

import pytest
import torch

import blt
from blt.machine.shares import ASSUMED
from blt.plan import find_hardware, make_plan
from blt.train import DataConfig, Recipe, TrainConfig, pace
from blt.train.meter import Meter
from blt.train.pace import Pace
from reports import REPORT
from shapes import TINY

PEAK = 1e12
BATCH = 512


@pytest.fixture
def meter(monkeypatch: pytest.MonkeyPatch) -> Meter:
    """Of a machine whose peak, threads and load are known."""
    monkeypatch.setattr(pace, "peak_flops", lambda device, dtype: PEAK)
    monkeypatch.setattr(pace, "processors", lambda: 2)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    monkeypatch.setattr(os, "getloadavg", lambda: (2.0, 0.0, 0.0))
    return Meter(blt.ByteLM(TINY), 100, torch.float32)


def said(meter: Meter, caplog: pytest.LogCaptureFixture, **changes: object) -> list[str]:
    """What is logged over reports at a share of the expected speed."""
    caplog.clear()
    expected = ASSUMED * PEAK / meter.flops_per_byte(None)
    shown: list[object] = []
    watch = Pace(meter, shown.append, BATCH)
    for step in (20, 30, 39, 40):
        slow = step < 40  # compiling takes long, and is over then
        share = 0.01 if slow else float(changes.get("share", 0.3))  # type: ignore[arg-type]
        report = replace(REPORT, step=step, patch_size=None, bytes_per_second=share * expected)
        watch(replace(report, waited=float(changes.get("waited", 0))))  # type: ignore[arg-type]
    assert len(shown) == 4
    return [record.getMessage() for record in caplog.records]


def test_a_slow_training_says_so_once_with_its_likely_causes(
    meter: Meter, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert said(meter, caplog, share=0.4) == []
    (line,) = said(meter, caplog)
    assert "at step 40, less than a third" in line
    assert "blt plan" in line
    assert "too small to fill the machine" in line
    (line,) = said(meter, caplog, waited=0.5)
    assert "wait for batches (50%" in line
    monkeypatch.setattr(os, "getloadavg", lambda: (7.3, 0.0, 0.0))
    monkeypatch.setattr(torch, "get_num_threads", lambda: 4)
    monkeypatch.setattr(pace, "bfloat16_is_faster", lambda device: False)
    (line,) = said(replace(meter, dtype=torch.bfloat16), caplog)
    for cause in ("load 7.3 on 2 processors", "4 threads for 2", "bfloat16 is only emulated"):
        assert cause in line


def test_where_the_peak_is_not_known_nothing_is_said(
    meter: Meter, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pace, "peak_flops", lambda device, dtype: None)
    assert said(meter, caplog, share=0.01) == []


def test_what_is_expected_is_what_blt_plan_expects(
    meter: Meter, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of the same work on the same device: what was measured there."""
    h100 = find_hardware("H100")
    monkeypatch.setattr(pace, "peak_flops", lambda device, dtype: h100.flops)
    monkeypatch.setattr(pace, "kind_of", lambda device: h100)
    data = DataConfig(("nowhere.txt",), context_bytes=meter.context_bytes, batch_bytes=BATCH)
    plan = make_plan(
        Recipe("byte", data, TrainConfig(steps=1, compile=False), byte_model=TINY), h100
    )
    assert plan.mfu != ASSUMED
    assert Pace(meter, None, BATCH)._expected(None) == pytest.approx(plan.bytes_per_second)
