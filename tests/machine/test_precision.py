"""Which precision matrix products take."""

from __future__ import annotations

import pytest
import torch

from blt.machine import precision
from blt.machine.precision import Precision, choose_dtype

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
