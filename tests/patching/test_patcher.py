"""A patcher is a rule with all that it needs, and all of the library counts its patches alike."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import blt
from blt.errors import UserError
from blt.evals.patch_size import patch_size
from blt.generate import Engine
from blt.patching import RULES, Patcher, PatchingConfig, Rule
from blt.patching.rules import Place
from blt.serve.analysis import Analysis
from blt.serve.schemas import RuleIn
from shapes import random_blt, tiny_config


@pytest.fixture(scope="module")
def learned() -> blt.BLT:
    return random_blt("learned", max_patch_length=9)


@pytest.mark.parametrize("cutter", ["lm", "learned"])
@given(text=st.binary(min_size=1, max_size=80))
def test_bytes_per_patch_are_the_same_wherever_they_are_told(
    request: pytest.FixtureRequest, cutter: str, text: bytes
) -> None:
    lm: blt.BLT = request.getfixturevalue(cutter)
    ids = blt.encode(text)
    size = lm.patch(text).mean_size
    assert lm.patcher.cut(text).mean_size == size
    assert lm.patcher.mean_patch_size([text]) == size
    assert lm.pack([ids]).mean_patch_size == size
    assert patch_size(lm, [text], 1000) == size
    assert Analysis.of(lm).patches(text, [RuleIn()]).patches[0].mean_size == size
    assert size == len(text) / max(1, int(lm.patch(text).starts[1:].sum()))


@pytest.fixture
def every_vowel() -> Iterator[str]:
    """A new rule: one class, and nothing else."""

    class AfterVowels(Rule):
        name = "after-vowels"
        about = "What follows a vowel."

        def holds(self, ids: torch.Tensor, entropies: torch.Tensor) -> torch.Tensor:
            return torch.isin(ids, blt.encode("aeiou")[1:])

        def holds_at(self, at: Place) -> bool:
            return at.recent[-1] in blt.encode("aeiou")[1:].tolist()

    yield AfterVowels.name
    del RULES[AfterVowels.name]


def test_a_new_rule_is_one_class(every_vowel: str) -> None:
    config = PatchingConfig(every_vowel)
    patcher = Patcher(config)
    assert patcher.cut(b"patches of bytes").patches == [b"pa", b"tche", b"s o", b"f byte", b"s"]
    assert patcher.describe() == every_vowel
    model = blt.BLT(tiny_config(patching=config, entropy_model=None)).eval()
    prompt = b"a model that cuts by it "
    with torch.no_grad():  # cached generation streams the rule, a whole forward does not
        written = Engine(model).submit(prompt, max_bytes=20).result()
    whole = model.patch(prompt + written.data).starts[1 + len(prompt) :].tolist()
    opens: Any = model.patcher.stream()
    seen = []
    for token_id in blt.encode(prompt + written.data).tolist():
        seen.append(opens.opens)
        opens = opens.read(token_id)
    assert seen[1 + len(prompt) :] == whole


def test_text_where_ids_are_wanted_is_told_the_way(lm: blt.BLT) -> None:
    text: Any = "text"
    with pytest.raises(ValueError, match=r"use blt.encode\(text\)"):
        lm.patcher.patch(text)


def test_an_unknown_rule_names_the_nearest() -> None:
    with pytest.raises(UserError, match="did you mean 'entropy'"):
        PatchingConfig("entropie")
