"""Which precision matrix products take."""

from __future__ import annotations

import pytest
import torch

from blt.machine import precision
from blt.machine.hardware import measured_flops
from blt.machine.precision import Precision, choose_dtype, reading_dtype

CPU = torch.device("cpu")


@pytest.mark.parametrize("faster", [True, False])
def test_bfloat16_is_taken_where_it_is_faster_and_warned_of_where_it_is_not(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, faster: bool
) -> None:
    monkeypatch.setattr(precision, "bfloat16_is_faster", lambda device: faster)
    precision._warn_if_slower.cache_clear()
    asked: list[Precision] = ["auto", "float32", "bfloat16", "bfloat16"]
    found = [choose_dtype(name, CPU) for name in asked]
    narrow = torch.bfloat16
    assert found == [narrow if faster else torch.float32, torch.float32, narrow, narrow]
    told = [record.getMessage() for record in caplog.records]
    assert len(told) == (0 if faster else 1)  # once, not at every call
    assert all("'auto' takes the faster" in message for message in told)
    precision._warn_if_slower.cache_clear()


@pytest.mark.parametrize("faster", [True, False])
def test_what_only_reads_is_narrow_on_a_gpu_that_can_and_never_on_a_cpu_unless_asked(
    monkeypatch: pytest.MonkeyPatch, faster: bool
) -> None:
    monkeypatch.setattr(precision, "bfloat16_is_faster", lambda device: faster)
    gpu = torch.device("cuda")
    assert reading_dtype(CPU) == torch.float32
    assert reading_dtype(gpu) == (torch.bfloat16 if faster else torch.float32)
    assert reading_dtype(gpu, "float32") == torch.float32
    assert reading_dtype(CPU, "bfloat16") == torch.bfloat16
    precision._warn_if_slower.cache_clear()


@pytest.mark.parametrize("narrow", [1.0, 3.0])
def test_bfloat16_is_faster_where_its_products_are(
    monkeypatch: pytest.MonkeyPatch, narrow: float
) -> None:
    flops = {torch.float32: 2.0, torch.bfloat16: narrow}
    monkeypatch.setattr(precision, "measured_flops", lambda dtype, *_, **__: flops[dtype])
    monkeypatch.setattr(precision, "_settled", {})
    assert precision.bfloat16_is_faster(CPU) == (narrow > 2.0)


def test_products_that_are_too_slow_are_not_repeated(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[object] = []
    monkeypatch.setattr(torch, "matmul", lambda *both: made.append(both))
    assert measured_flops(torch.float32, 8, 5) > 0
    assert len(made) == 6
    measured_flops(torch.float32, 8, 5, least=float("inf"))
    assert len(made) == 8
