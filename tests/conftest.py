"""Small models that every test may share."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import TYPE_CHECKING

if "PYTEST_XDIST_WORKER" in os.environ:  # as many as processors: a thread for each
    os.environ["OMP_NUM_THREADS"] = "1"
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # as blt does, here too late

import pytest
import torch
from hypothesis import HealthCheck, settings

import blt
from shapes import tiny_config

if TYPE_CHECKING:
    from served import Served

settings.register_profile(
    "default",
    deadline=None,  # nothing here depends on the clock
    max_examples=25,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
settings.load_profile("default")


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int:
    """One more than there are processors: many tests wait for other processes, or for a clock."""
    return (os.cpu_count() or 1) + 1


@pytest.fixture(scope="session")
def lm() -> blt.BLT:
    """Random weights; mean patch size between 1 and 4."""
    torch.manual_seed(0)
    model = blt.BLT(tiny_config()).eval()
    assert model.entropy_model is not None
    with torch.no_grad():
        model.entropy_model.head.weight *= 2
    return model


@pytest.fixture(scope="session")
def served() -> Iterator[Served]:
    """A server on loopback, for tests that leave nothing behind in it."""
    from blt.serve.settings import Limits, Settings
    from served import serving

    limits = Limits(body_bytes=100_000, prompt_bytes=4000, max_bytes=100_000, choices=8)
    with serving(Settings("tiny", max_batch=4, limits=limits)) as server:
        yield server
