"""What a token model says about bytes is what its tokens say, summed up one by one."""

from __future__ import annotations

import json

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

import blt
from blt import vocab
from blt.byteify.teacher import Taught, Teacher
from blt.lm import TokenLM
from blt.model.config import TokenTransformerConfig
from blt.tokens.tokenizer import ByteTokenizer
from texts import MULTILINGUAL


@pytest.fixture(scope="module")
def teacher() -> Teacher:
    torch.manual_seed(0)
    shape = TokenTransformerConfig(vocab_size=400, dim=16, heads=2, layers=1, ff_dim=32)
    tokenizer = ByteTokenizer.train([MULTILINGUAL, b"the theatre and the other thing " * 20], 390)
    lm = TokenLM(shape, tokenizer).eval()
    with torch.no_grad():
        lm.head.weight *= 3
    return Teacher(lm, shape)


def one_by_one(teacher: Teacher, data: bytes) -> list[list[float]]:
    """By the definition, with a loop over the vocabulary for each byte."""
    lm = teacher.lm
    tokens = lm.tokenizer.encode(data)
    with torch.no_grad():
        p = lm.packed_logits([lm.ids_of(data)]).softmax(-1).double()
    texts = [lm.tokenizer.decode([i]) for i in range(lm.tokenizer.vocab_size)]
    found = []
    for row, token in enumerate(tokens):
        for known in range(len(texts[token])):
            sums = [0.0] * 256
            for i, text in enumerate(texts):
                if len(text) > known and text[:known] == texts[token][:known]:
                    sums[text[known]] += float(p[row, i])
            found.append([value / sum(sums) for value in sums])
    return found


@given(st.lists(st.binary(max_size=12) | st.text(max_size=8).map(str.encode), max_size=3))
def test_bytes_are_as_likely_as_the_tokens_that_go_on_with_them(
    teacher: Teacher, texts: list[bytes]
) -> None:
    texts = [*texts, b"the other theatre"]
    documents = [blt.encode(text, eos=n % 2 == 1) for n, text in enumerate(texts)]
    taught = teacher.read(documents).probabilities.split([len(ids) for ids in documents])
    for text, rows in zip(texts, taught, strict=True):
        expected = torch.tensor(one_by_one(teacher, text)).reshape(-1, 256)
        torch.testing.assert_close(rows[: len(text)], expected, rtol=1e-4, atol=1e-6)
        assert not rows[len(text) :].any()  # after the last byte, and after EOS


def test_special_tokens_and_ids_without_a_token_stand_for_no_bytes(teacher: Teacher) -> None:
    tokenizer = teacher.lm.tokenizer
    described = json.loads(tokenizer.json)
    described["model"]["vocab"]["<s>"] = 395
    flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
    described["added_tokens"] = [{"id": 395, "content": "<s>", "special": True, **flags}]
    tokens = ByteTokenizer(json.dumps(described)).tokens()
    assert tokens[390:] == [b""] * 6
    assert tokens[:390] == [tokenizer.decode([i]) for i in range(390)]
    assert tokens[:390] == tokenizer.tokens()


def test_the_excess_mixes_both_targets_where_the_teacher_speaks() -> None:
    torch.manual_seed(0)
    logits, byte = torch.randn(4, 260), 7
    targets = torch.tensor([byte + vocab.OFFSET, byte + vocab.OFFSET, vocab.EOS, vocab.PAD])
    p = torch.rand(4, 256).softmax(-1)
    p[1] = 0  # says nothing here
    weight = 0.3
    loss = F.cross_entropy(logits, targets, ignore_index=vocab.PAD, reduction="sum")
    loss = loss + weight * Taught(p, 0.0).excess(logits, targets)
    log_q = logits.log_softmax(-1)
    soft = F.pad(p[0], (vocab.OFFSET, 0))
    mixed = weight * soft + (1 - weight) * F.one_hot(targets[0], 260)
    expected = -(mixed * log_q[0]).sum() - log_q[1, targets[1]] - log_q[2, vocab.EOS]
    torch.testing.assert_close(loss, expected)
    sure = F.one_hot(torch.full((4,), byte), 256).float()
    assert float(Taught(sure, 0.0).excess(logits, targets)) == pytest.approx(0.0, abs=1e-5)
