"""What a byte of training costs is not what a step costs that happens to compile."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from blt.study import costs


def test_seconds_of_steps_are_those_of_most_not_of_one_that_compiles(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now, number = [0.0], [0]

    def step(_: float) -> SimpleNamespace:
        number[0] += 1
        now[0] += 60.0 if number[0] % 10 == 3 else 0.5
        return SimpleNamespace(num_bytes=1000)

    monkeypatch.setattr(costs.time, "monotonic", lambda: now[0])
    model = SimpleNamespace(device=torch.device("cpu"))
    trainer = SimpleNamespace(step=step, model=model)
    assert costs._seconds(trainer) == pytest.approx(500.0)  # type: ignore[arg-type]
    assert number[0] == costs.TIMED
