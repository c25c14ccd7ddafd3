"""Small models that every test may share."""

from __future__ import annotations

import pytest
import torch
from hypothesis import HealthCheck, settings

import blt
from shapes import tiny_config

settings.register_profile(
    "default",
    deadline=None,  # nothing here depends on the clock
    max_examples=25,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
settings.load_profile("default")


@pytest.fixture(scope="session")
def lm() -> blt.BLT:
    """Random weights; mean patch size between 1 and 4."""
    torch.manual_seed(0)
    model = blt.BLT(tiny_config()).eval()
    assert model.entropy_model is not None
    with torch.no_grad():
        model.entropy_model.head.weight *= 2
    return model
