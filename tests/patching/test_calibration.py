"""A calibrated threshold gives the patch size that was asked for, measured as users see it."""

from __future__ import annotations

import pytest

import blt
from blt.errors import UserError
from blt.train import calibrate, mean_patch_size

TEXT = [bytes((n * n * step) % 251 for n in range(700)) for step in range(1, 9)]


@pytest.mark.parametrize("target", [1.5, 3.0, 6.0])
def test_the_target_is_reached(lm: blt.BLT, target: float) -> None:
    assert lm.entropy_model is not None
    config = calibrate(lm.entropy_model, TEXT, target, blt.PatchingConfig(), context_bytes=200)
    size = mean_patch_size(config, lm.entropy_model, TEXT, context_bytes=200)
    assert size == pytest.approx(target, rel=0.02)


def test_bos_is_not_counted() -> None:
    static = blt.PatchingConfig(rule="static", stride=4)
    assert mean_patch_size(static, None, [bytes(400)], context_bytes=40) == 4.0
    assert mean_patch_size(static, None, [], context_bytes=40) == 0.0


def test_what_cannot_be_calibrated_is_said(lm: blt.BLT) -> None:
    assert lm.entropy_model is not None
    with pytest.raises(UserError, match="only entropy rules"):
        calibrate(lm.entropy_model, TEXT, 4.0, blt.PatchingConfig(rule="space"))
    with pytest.raises(UserError, match="no bytes"):
        calibrate(lm.entropy_model, [], 4.0, blt.PatchingConfig())
    with pytest.raises(UserError, match="at least 1"):
        calibrate(lm.entropy_model, TEXT, 0.5, blt.PatchingConfig())
