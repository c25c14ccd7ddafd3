"""What a token model says about bytes is what its tokens say, summed up one by one."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

import blt
from blt import vocab
from blt.byteify.teacher import Lesson, Taught, Teacher
from blt.checkpoint.open import open_token_model
from blt.evals.models import reader_of
from blt.lm import TokenLM
from blt.model.config import TokenTransformerConfig
from blt.tokens.tokenizer import ByteTokenizer
from texts import MULTILINGUAL


@pytest.fixture(scope="module")
def lm() -> TokenLM:
    torch.manual_seed(0)
    shape = TokenTransformerConfig(vocab_size=400, dim=16, heads=2, layers=1, ff_dim=32)
    tokenizer = ByteTokenizer.train([MULTILINGUAL, b"the theatre and the other thing " * 20], 390)
    lm = TokenLM(shape, tokenizer).eval()
    with torch.no_grad():
        lm.head.weight *= 3
        lm.norm.weight.uniform_(0.5, 1.5)
    return lm


@pytest.fixture(scope="module")
def teacher(lm: TokenLM, tmp_path_factory: pytest.TempPathFactory) -> Teacher:
    folder = tmp_path_factory.mktemp("teacher")
    lm.save(folder)
    return Teacher(reader_of(folder), open_token_model(folder), torch.device("cpu"))


def hidden_of(lm: TokenLM, lesson: Lesson) -> Tensor:
    """What the layers make of the tokens of a lesson."""
    return lm.transformer(lesson.embeddings, lesson.packed.patches)  # type: ignore[no-any-return]


def one_by_one(lm: TokenLM, data: bytes) -> list[list[float]]:
    """By the definition, with a loop over the vocabulary for each byte."""
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
    lm: TokenLM, teacher: Teacher, texts: list[bytes]
) -> None:
    texts = [*texts, b"the other theatre"]
    documents = [blt.encode(text, eos=n % 2 == 1) for n, text in enumerate(texts)]
    lesson = teacher.lesson(documents)
    taught = teacher.says(lesson, hidden_of(lm, lesson)).probabilities
    parts = taught.split([len(ids) for ids in documents])
    for text, rows in zip(texts, parts, strict=True):
        expected = torch.tensor(one_by_one(lm, text)).reshape(-1, 256)
        torch.testing.assert_close(rows[: len(text)], expected, rtol=1e-4, atol=1e-6)
        assert not rows[len(text) :].any()  # after the last byte, and after EOS


def test_patches_come_with_the_embeddings_of_their_tokens(lm: TokenLM, teacher: Teacher) -> None:
    """BOS with the source's BOS; a token of which no byte follows the first has no patch yet."""
    texts, eos = [b"the other", b"", b"the o", b"the "], [True, False, False, False]
    documents = [blt.encode(text, eos=last) for text, last in zip(texts, eos, strict=True)]
    lesson = teacher.lesson(documents)
    tokens = [lm.tokenizer.decode([token]) for token in lm.tokenizer.encode(texts[0])]
    assert tokens == [b"the", b" other"]
    the, other = lm.tokenizer.encode(texts[0])
    assert lm.tokenizer.encode(texts[2]) == [the, *lm.tokenizer.encode(b" o")]
    expected = [[400, the, other], [400], [400, the, lm.tokenizer.encode(b" o")[0]], [400, the]]
    assert lesson.packed.patches.lengths == [3, 1, 3, 2]
    ids = torch.tensor([token for row in expected for token in row])
    assert torch.equal(lesson.embeddings, lm.get_parameter("embedding")[ids])


def test_special_tokens_and_ids_without_a_token_stand_for_no_bytes(lm: TokenLM) -> None:
    tokenizer = lm.tokenizer
    described = json.loads(tokenizer.json)
    described["model"]["vocab"]["<s>"] = 395
    flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
    described["added_tokens"] = [{"id": 395, "content": "<s>", "special": True, **flags}]
    tokens = ByteTokenizer(json.dumps(described)).tokens()
    assert tokens[390:] == [b""] * 6
    assert tokens[:390] == [tokenizer.decode([i]) for i in range(390)]
    assert tokens[:390] == tokenizer.tokens()


def test_the_reader_of_a_folder_is_its_model_s(lm: TokenLM, tmp_path: Path) -> None:
    lm.save(tmp_path)
    reader = reader_of(tmp_path)
    assert (reader.bos, reader.eos) == (lm.bos, lm.eos)
    assert reader.tokenizer.encode(MULTILINGUAL) == lm.tokenizer.encode(MULTILINGUAL)


def test_the_excess_mixes_both_targets_where_the_teacher_speaks() -> None:
    torch.manual_seed(0)
    logits, byte = torch.randn(4, 260), 7
    targets = torch.tensor([byte + vocab.OFFSET, byte + vocab.OFFSET, vocab.EOS, vocab.PAD])
    p = torch.rand(4, 256).softmax(-1)
    p[1] = 0  # says nothing here
    weight = 0.3
    loss = F.cross_entropy(logits, targets, ignore_index=vocab.PAD, reduction="sum")
    loss = loss + weight * Taught(p).excess(logits, targets)
    log_q = logits.log_softmax(-1)
    soft = F.pad(p[0], (vocab.OFFSET, 0))
    mixed = weight * soft + (1 - weight) * F.one_hot(targets[0], 260)
    expected = -(mixed * log_q[0]).sum() - log_q[1, targets[1]] - log_q[2, vocab.EOS]
    torch.testing.assert_close(loss, expected)
    sure = F.one_hot(torch.full((4,), byte), 256).float()
    assert float(Taught(sure).excess(logits, targets)) == pytest.approx(0.0, abs=1e-5)
