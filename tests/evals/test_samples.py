"""What is not UTF-8 is counted by the character, and what the mask takes away is its mass."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

import blt
from blt import cli, vocab
from blt.evals.samples import MASK, NO_MASK, TOKENS, masked_mass, prompts, rows, validity
from blt.generate import Generation
from blt.lm import TokenLM
from blt.model.config import TokenTransformerConfig
from blt.tokens.tokenizer import ByteTokenizer
from shapes import TINY, TINY_BLT, random_blt
from texts import MULTILINGUAL


def sample(data: bytes, reason: Any = "length") -> Generation:
    return Generation(data, reason, [], [], b"")


def test_invalid_utf8_is_counted_in_characters() -> None:
    assert validity(sample(b"abc")) == (0, 3)
    assert validity(sample(b"a\xffb\xfe")) == (2, 4)
    assert validity(sample("é€".encode())) == (0, 2)
    cut = "xé".encode()[:-1]
    assert validity(sample(cut)) == (0, 1)  # a character that the limit cut off is no mistake
    assert validity(sample(cut, "eos")) == (1, 2)


@torch.no_grad()
def test_the_mass_is_that_of_what_could_not_become_a_character() -> None:
    torch.manual_seed(0)
    lm = blt.ByteLM(TINY).eval()
    prompt, data = b"a", "é!".encode()
    shares = lm.logits(blt.encode(prompt + data)).double()
    shares[:, [vocab.BOE, vocab.BOS, vocab.BPE]] = -torch.inf
    shares = shares.softmax(-1)[1:4]
    begins = [*range(128), *range(0xC2, 0xF5)]
    kept = [
        float(shares[0, [vocab.EOS, *(b + vocab.OFFSET for b in begins)]].sum()),
        float(shares[1, [b + vocab.OFFSET for b in range(0x80, 0xC0)]].sum()),  # within é: no end
        float(shares[2, [vocab.EOS, *(b + vocab.OFFSET for b in begins)]].sum()),
    ]
    expected = sum(1 - share for share in kept) / 3
    assert masked_mass(lm, [(prompt, data)]) == pytest.approx(expected, rel=1e-4)
    assert masked_mass(lm, [(prompt, data)] * 2) == pytest.approx(expected, rel=1e-4)
    assert masked_mass(lm, []) == masked_mass(lm, [(b"a", b"")]) == 0


def test_byte_models_are_masked_and_token_models_say_that_they_are_not() -> None:
    for lm in (random_blt(), blt.ByteLM(TINY).eval()):
        plain, masked = rows(lm, "nothing", [b"", "é".encode()])
        assert (plain.row["mask"], masked.row["mask"]) == (NO_MASK, MASK)
        assert plain.row["invalid_characters"] > 0 == masked.row["invalid_characters"]
        assert plain.row["masked_per_byte"] is None
        assert 0 < masked.row["masked_per_byte"] < 1
    shape = TokenTransformerConfig(vocab_size=300, dim=16, heads=2, layers=1, ff_dim=32)
    tokens = TokenLM(shape, ByteTokenizer.train([MULTILINGUAL], 300)).eval()
    (only,) = rows(tokens, "nothing", [b"One"])
    assert only.row["mask"] == TOKENS
    assert only.row["masked_per_byte"] is None
    assert only.row["characters"] > 0


def test_samples_begin_with_whole_characters(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert prompts(["é".encode() * 100], 2) == ["é".encode() * 64] * 2
    assert prompts(["aé€".encode() + b"x" * 200, b""], 3)[2] == "aé€".encode() + b"x" * 122
    assert prompts([], 1) == [b""]
    text, model = tmp_path / "text.txt", tmp_path / "model"
    text.write_bytes(MULTILINGUAL[:200])
    blt.BLT(TINY_BLT).save(model)
    args = ["eval", "utf8", str(text), "--model", str(model), "--limit", "2", "--json"]
    assert cli.main(args) == 0
    found = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [row["after"] for row in found] == ["nothing"] * 2 + [str(text)] * 2
    assert {"low", "high"} <= set(found[0])
