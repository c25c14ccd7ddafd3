"""What a server says about a text is what the model does, by whatever rule it cuts."""

from __future__ import annotations

import pytest
import torch

from blt.serve.analysis import Analysis
from blt.serve.schemas import RuleIn
from shapes import random_blt

TEXT = "नदी के किनारे एक small village, число 12".encode()


@pytest.mark.parametrize("rule", ["entropy", "static", "space", "byte", "lookup", "learned"])
def test_a_model_of_every_rule_is_shown_in_its_own_patches(rule: str) -> None:
    lm = random_blt(rule)
    if rule == "entropy":
        lm.calibrate([TEXT], 4.0)
    model, other = (
        Analysis.of(lm).patches(TEXT, [RuleIn(rule="model"), RuleIn(rule="space")]).patches
    )
    own = lm.patcher.cut(TEXT).lengths
    assert torch.diff(torch.tensor([*model.starts, len(TEXT)])).tolist() == own
    assert len(own) > 3
    assert other.starts != model.starts or rule == "space"
