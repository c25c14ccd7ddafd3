"""How much of a training is done."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from blt.train.budget import Budget
from blt.train.sections import TrainConfig

SECONDS = 100.0


@given(st.lists(st.tuples(st.floats(0.01, 30), st.floats(0, 2)), min_size=1, max_size=30))
def test_progress_of_a_budget_in_seconds_never_goes_back(
    steps: list[tuple[float, float]],
) -> None:
    """However long steps, and what is between them, take."""
    now = 0.0
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(time, "monotonic", lambda: now)
        budget = Budget(TrainConfig(seconds=SECONDS), 0.0, scored_bytes=10**5, checkpoint_bytes=0)
        before = 0.0
        for count, (seconds, between) in enumerate(steps, 1):
            now += seconds
            budget.stepped(seconds, 1.0)
            now += between
            progress = budget.progress(count, 4096, float(count))
            assert before <= progress <= 1
            assert progress >= min(1.0, now / SECONDS)
            before = progress


@pytest.mark.parametrize("step", [0, 1, 5, 9, 10])
def test_a_budget_in_steps_is_the_share_of_steps_taken(step: int) -> None:
    budget = Budget(TrainConfig(steps=10), 0.0, scored_bytes=0, checkpoint_bytes=0)
    assert budget.progress(step, 4096, 0.0) == step / 10


def test_of_several_budgets_the_first_to_end_ends_the_training() -> None:
    config = TrainConfig(steps=10, flops=1000.0)
    budget = Budget(config, 0.0, scored_bytes=0, checkpoint_bytes=0)
    assert budget.progress(1, 4096, 500.0) == 0.5
    assert budget.progress(8, 4096, 600.0) == 0.8
    assert budget.progress(9, 4096, 1000.0) == 1.0


def test_the_schedule_begins_with_the_first_step(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    sizes = {"scored_bytes": 0, "checkpoint_bytes": 0}
    budget = Budget(TrainConfig(seconds=SECONDS), 30.0, prepared=30.0, **sizes)
    assert budget.progress(0, 4096, 0.0) == 0
    now = 35.0
    assert budget.progress(1, 4096, 0.0) == pytest.approx(0.5)
    resumed = Budget(TrainConfig(seconds=SECONDS), budget.seconds, prepared=30.0, **sizes)
    assert resumed.progress(1, 4096, 0.0) == pytest.approx(0.5)
    now += 35.0
    assert resumed.progress(1, 4096, 0.0) == budget.progress(1, 4096, 0.0) == 1


def test_a_step_the_last_checkpoint_and_the_last_scores_are_set_aside_of_seconds() -> None:
    now = 0.0
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(time, "monotonic", lambda: now)
        budget = Budget(TrainConfig(seconds=SECONDS), 0.0, scored_bytes=1000, checkpoint_bytes=0)
        budget.checkpoint_seconds = 3.0
        budget.stepped(5.0, 1.0)
        budget.evaluated(500, 1.0)  # 1000 bytes take 2 seconds
        now = 45.0
        assert budget.progress(1, 4096, 1.0) == 45 / (SECONDS - 5 - 3 - 2)
        now = 90.0
        assert budget.progress(2, 4096, 2.0) == 1.0
