"""A token model reads and scores any bytes, and counts every one of them."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import blt
from blt import vocab
from blt.data.loader import Loader
from blt.data.noised import with_noise
from blt.data.segments import MemorySegments
from blt.errors import UserError
from blt.generate import Sampling
from blt.generate.tokens import _Text
from blt.lm import TokenLM
from blt.model.config import TokenTransformerConfig
from blt.scoring.bits import bits_per_byte
from blt.texts.noises import NOISES
from blt.tokens.tokenizer import ByteTokenizer, readable_runs
from texts import MULTILINGUAL

TEXTS = [MULTILINGUAL, b"the theatre and the other thing " * 20]


@pytest.fixture(scope="module")
def tokenizer() -> ByteTokenizer:
    return ByteTokenizer.train(TEXTS, 400)


@pytest.fixture(scope="module")
def lm(tokenizer: ByteTokenizer) -> TokenLM:
    torch.manual_seed(0)
    shape = TokenTransformerConfig(vocab_size=400, dim=16, heads=2, layers=1, ff_dim=32)
    return TokenLM(shape, tokenizer).eval()


@given(st.binary(max_size=60) | st.text(max_size=30).map(str.encode))
def test_any_bytes_come_back(tokenizer: ByteTokenizer, data: bytes) -> None:
    ids = tokenizer.encode(data)
    assert tokenizer.decode(ids) == data
    assert all(0 <= i < 400 for i in ids)


def test_common_words_are_tokens(tokenizer: ByteTokenizer) -> None:
    assert tokenizer.vocab_size == 400
    assert len(tokenizer.encode(TEXTS[1])) < len(TEXTS[1]) / 2


@given(st.binary(min_size=1, max_size=60))
def test_bits_per_byte_count_every_byte_from_the_first_token_on(lm: TokenLM, data: bytes) -> None:
    ids = [lm.bos, *lm.tokenizer.encode(data)]
    with torch.no_grad():
        spans = blt.model.packing.Spans.from_lengths([len(ids)])
        log_p = lm(torch.tensor(ids), spans).log_softmax(-1)
    nats = -sum(float(log_p[i, token]) for i, token in enumerate(ids[1:]))
    expected = nats / math.log(2) / len(data)
    assert lm.bits_per_byte(data) == pytest.approx(expected, rel=1e-4)
    assert bits_per_byte(lm, [data]) == pytest.approx(expected, rel=1e-4)


@given(
    st.lists(st.binary(min_size=1, max_size=60) | st.just(TEXTS[1][:300]), min_size=1, max_size=4),
    st.sampled_from([0.0, 0.5, 1.0]),
    st.integers(0, 99),
)
def test_it_is_asked_for_the_bytes_that_byte_models_are_but_for_tokens_with_noise(
    lm: TokenLM, documents: list[bytes], share: float, seed: int
) -> None:
    source = with_noise(MemorySegments(documents, 100), share, list(NOISES))
    loader = Loader([source], batch_bytes=200, context_bytes=100, seed=seed)
    batch = next(loader)
    ready = lm.ready(batch)
    assert ready.batch.num_bytes == batch.num_bytes
    at = of_bytes = 0
    for ids in batch.documents:
        text, span = vocab.decode(ids), slice(of_bytes, of_bytes + len(ids))
        byte_targets, asked = batch.targets[span], ready.batch.targets[span]
        tokens = lm.tokenizer.encode(text)
        ended = int(ids[-1]) == vocab.EOS
        of_tokens = ready.targets[at : at + 1 + len(tokens) + ended].tolist()
        first = 0
        for number, token in enumerate(tokens):
            last = first + len(lm.tokenizer.decode([token]))
            whole = bool((byte_targets[first:last] != vocab.PAD).all())
            assert of_tokens[number] == (token if whole else vocab.PAD)
            assert ((asked[first:last] != vocab.PAD) == whole).all()
            first = last
        behind = byte_targets[first:].clone()
        behind[-1] = vocab.PAD  # what follows a cut is the byte of a token that is not known yet
        assert torch.equal(asked[first:], behind)
        assert of_tokens[len(tokens) :] == ([lm.eos] * ended + [vocab.PAD])
        at, of_bytes = at + len(of_tokens), span.stop
    if share == 0:
        assert ready.batch.num_targets == batch.num_bytes + sum(
            int(ids[-1]) == vocab.EOS for ids in batch.documents
        )


def test_a_saved_model_is_the_same(lm: TokenLM, tmp_path: Path) -> None:
    lm.save(tmp_path / "model")
    again = blt.load(tmp_path / "model")
    assert isinstance(again, TokenLM)
    assert again.bits_per_byte(MULTILINGUAL) == lm.bits_per_byte(MULTILINGUAL)
    (tmp_path / "model" / "tokenizer.json").write_text("{}")
    with pytest.raises(UserError, match=r"tokenizer\.json"):
        blt.load(tmp_path / "model")


def test_what_cannot_be_is_said(lm: TokenLM, tokenizer: ByteTokenizer, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="at least 256"):
        ByteTokenizer.train(TEXTS, 100)
    with pytest.raises(UserError, match="400 tokens, the model only 300"):
        TokenLM(TokenTransformerConfig(vocab_size=300), tokenizer)
    with pytest.raises(UserError, match="temperature"):
        lm.generate("x", temperature=-1.0)


def test_only_ids_that_are_tokens_are_written(tokenizer: ByteTokenizer) -> None:
    torch.manual_seed(0)
    shape = TokenTransformerConfig(vocab_size=2000, dim=16, heads=2, layers=1, ff_dim=32)
    larger = TokenLM(shape, tokenizer).eval()
    written = larger.generate(["a", "b", "c"], max_bytes=20, temperature=1.0)
    assert all(text.data and text.finish_reason == "length" for text in written)


PARTS = (b"e", "€".encode(), b"\xe2\x82", b"\xf0\x9f", b"\xff", b"\x80")


@given(st.lists(st.sampled_from(PARTS)))
def test_what_is_no_utf8_is_told_apart_as_python_does(parts: list[bytes]) -> None:
    data, found = b"".join(parts), []
    rest = data
    while rest:
        try:
            found, rest = [*found, rest.decode()], b""
        except UnicodeDecodeError as error:
            found += [rest[: error.start].decode(), rest[error.start : error.end]]
            rest = rest[error.end :]
    assert list(readable_runs(data)) == [run for run in found if run]


def test_a_character_that_the_prompt_begins_is_noted(lm: TokenLM) -> None:
    ended = torch.cat([vocab.encode(b"caf\xc3"), torch.tensor([vocab.EOS])])
    found = lm.generate([b"caf\xc3", "caf\u00e9", vocab.encode(b"\xe2\x82"), ended], max_bytes=3)
    assert [text.begun for text in found] == [b"\xc3", b"", b"\xe2\x82", b""]


def test_a_stop_string_beyond_the_most_bytes_is_none_of_the_text(lm: TokenLM) -> None:
    text = _Text(lm, b"", Sampling(max_bytes=8, stop=(b"STOP",)))
    for token in lm.tokenizer.encode(b"abcdefghi STOP"):
        if text.reason is None:
            text.push(token)
    assert (text.data, text.reason) == (b"abcdefgh", "length")


@given(st.text("ab o.the \n", max_size=30), st.text("ab o.the \n", min_size=1, max_size=30))
def test_every_byte_of_a_continuation_is_scored(lm: TokenLM, prompt: str, rest: str) -> None:
    """A token that joins it with its prompt is among them, and no token of the prompt alone."""
    ids = lm.ids_of((prompt + rest).encode())
    first = lm.first_of(prompt.encode(), ids)
    assert 1 <= first < len(ids)
    before = lm.tokenizer.decode(ids[1:first].tolist())
    assert prompt.encode().startswith(before)
    shared = ids[:first].tolist()
    assert lm.ids_of(prompt.encode())[:first].tolist() == shared


def test_a_sample_depends_on_its_seed_and_on_no_other_text(lm: TokenLM) -> None:
    prompts, how = ["ab", "ab", "c", "ab"], {"max_bytes": 12, "temperature": 1.0}
    together = [found.data for found in lm.generate(prompts, seed=3, **how)]
    alone = [lm.generate(text, seed=3 + i, **how).data for i, text in enumerate(prompts)]
    assert together == alone
    assert len({together[0], together[1], together[3]}) == 3


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ({"top_p": 0.5}, "top_p cannot be done by a token model"),
        ({"ignore_eos": True}, "ignore_eos cannot be done by a token model"),
        ({"temprature": 1.0}, "did you mean 'temperature'"),
        ({"max_bytes": 2.5}, "max_bytes must be a whole number"),
        ({"stop": ["x", ""]}, "stop: an empty string"),
        ({"seed": -1}, "seed must be at least 0"),
    ],
)
def test_an_option_that_it_cannot_do_is_refused(
    lm: TokenLM, option: dict[str, Any], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        lm.generate("x", **option)
    assert lm.generate("x", top_p=1.0, max_bytes=0).finish_reason == "length"


@pytest.mark.parametrize("seed", [0, 2**63, 2**64])
@pytest.mark.parametrize("temperature", [1e-300, 1e-45, 1e-3])
def test_any_seed_and_temperature_can_be_sampled_with(
    lm: TokenLM, seed: int, temperature: float
) -> None:
    found = lm.generate("the", max_bytes=8, temperature=temperature, seed=seed)
    if temperature < 1e-9:
        assert found.data == lm.generate("the", max_bytes=8).data


def test_ids_over_bytes_become_its_own_and_other_special_ids_are_refused(lm: TokenLM) -> None:
    ids = torch.cat((vocab.encode("user\nthe theatre", eos=True), vocab.encode("ab", bos=False)))
    encoded = [lm.tokenizer.encode(part) for part in (b"user\nthe theatre", b"ab")]
    expected = [lm.bos, *encoded[0], lm.eos, *encoded[1]]
    assert lm.tokens_of(ids).tolist() == expected
    logits = lm.packed_logits([torch.tensor(expected)])[-1]
    logits[lm.bos] = -torch.inf
    written = lm.generate(ids, max_bytes=1)
    assert written.prompt == b"user\nthe theatreab"
    if int(logits.argmax()) != lm.eos:
        assert lm.tokenizer.decode([int(logits.argmax())])[:1] == written.data
    with pytest.raises(UserError, match="no special ids but BOS, EOS"):
        lm.tokens_of(torch.tensor([vocab.BPE]))
