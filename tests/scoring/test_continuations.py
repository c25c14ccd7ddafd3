"""What texts share is read once, and changes nothing about what each of them is worth."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import blt
from blocks import MIXED, block_blt
from blt.errors import UserError
from blt.lm import LanguageModel, TokenLM
from blt.model.config import TokenTransformerConfig
from blt.model.prefix_tree import LEAST, PrefixTree
from blt.scoring.continuations import score
from blt.tokens.tokenizer import ByteTokenizer
from shapes import TINY, random_blt
from texts import MULTILINGUAL

Pairs = list[tuple[bytes, bytes]]
short = st.binary(max_size=30)
shared = st.sampled_from([MULTILINGUAL[at : at + size] for at in (0, 700) for size in (0, 40, 300)])
pairs = st.lists(st.tuples(st.builds(bytes.__add__, shared, short), short), max_size=6)


def tokens() -> TokenLM:
    shape = TokenTransformerConfig(vocab_size=300, dim=16, heads=2, layers=2, ff_dim=32)
    return TokenLM(shape, ByteTokenizer.train([MULTILINGUAL], 300)).eval()


RULES = {
    "entropy": {"threshold": 4.6},
    "entropy-monotonic": {},
    "entropy-combined": {"threshold": 4.5, "threshold_add": 0.01},
    "space": {"max_patch_length": 5},
    "static": {"stride": 3},
    "byte": {},
    "lookup": {"lookup_order": 2},
    "learned": {"max_patch_length": 8},
}


OTHERS = ("reset", "plain patches", "other layers", "bytes", "tokens")


@pytest.fixture(scope="module")
def models() -> dict[str, LanguageModel]:
    torch.manual_seed(0)
    found: dict[str, LanguageModel] = {r: random_blt(r, **o) for r, o in RULES.items()}  # type: ignore[arg-type]
    found["reset"] = random_blt(newline_reset=True)
    found["other layers"] = block_blt(MIXED)
    found["plain patches"] = blt.BLT(
        blt.Config(
            local_dim=16, local_heads=2, encoder_ff_dim=16, decoder_layers=1, decoder_ff_dim=16,
            global_dim=48, global_heads=2, global_layers=1, global_ff_dim=16, hash_rows=50,
            encoder_cross_attention="none", decoder_cross_attention="none", entropy_model=TINY,
        )
    ).eval()  # fmt: skip
    return found | {"bytes": blt.ByteLM(TINY).eval(), "tokens": tokens()}


@torch.no_grad()
def alone(lm: LanguageModel, prompt: bytes, rest: bytes) -> tuple[float, bool]:
    """From a packed forward of one text."""
    ids = lm.ids_of(prompt + rest)
    first = lm.first_of(prompt, ids)
    logits = lm.packed_logits([ids])[first - 1 : -1]
    log_p = logits.log_softmax(-1).gather(1, ids[first:, None])
    return float(log_p.double().sum()), torch.equal(logits.argmax(-1), ids[first:])


@pytest.mark.parametrize("kind", [*RULES, *OTHERS])
@given(asked=pairs)
@settings(max_examples=6)
def test_texts_are_worth_what_they_are_worth_alone(
    models: dict[str, LanguageModel], kind: str, asked: Pairs
) -> None:
    lm = models[kind]
    for (prompt, rest), found in zip(asked, score(lm, asked), strict=True):
        log_p, greedy = alone(lm, prompt, rest)
        assert found.log_p == pytest.approx(log_p, rel=1e-4, abs=1e-4)
        assert found.greedy == greedy


def test_groups_are_cut_anywhere(models: dict[str, LanguageModel], monkeypatch: object) -> None:
    lm = models["entropy"]
    asked = [(MULTILINGUAL[:at], MULTILINGUAL[at : at + 20]) for at in range(0, 900, 37)]
    whole = lm.log_likelihoods(asked)
    monkeypatch.setattr(type(lm), "scoring_ids", 500)  # type: ignore[attr-defined]
    assert lm.log_likelihoods(asked) == pytest.approx(whole, rel=1e-4)


def test_nothing_is_certain(models: dict[str, LanguageModel]) -> None:
    for lm in models.values():
        assert score(lm, []) == []
        assert score(lm, [(b"a prompt", b"")]) == [(0.0, True)]


@given(st.lists(st.builds(bytes.__add__, shared, short), min_size=1, max_size=8))
def test_a_tree_holds_every_document_and_what_they_share_once(texts: list[bytes]) -> None:
    documents = [blt.encode(b"so much is worth sharing" + text) for text in sorted(texts)]
    tree = PrefixTree.of(documents)
    for index, ids in enumerate(documents):
        assert torch.equal(tree.ids[tree.path(index)], ids)
        assert torch.equal(tree.branches.spans.positions[tree.path(index)], torch.arange(len(ids)))
    again = PrefixTree.of([ids for ids in documents for _ in range(3)])
    assert len(again.ids) < len(tree.ids) + 2 * LEAST * len(documents)  # so few are read again


@pytest.mark.parametrize("lm", [random_blt(), tokens()], ids=["blt", "token"])
def test_text_is_worth_what_its_bytes_are(lm: LanguageModel) -> None:
    texts = [("caf\u00e9 ol", "d man"), ("", "\u20ac")]
    as_bytes = [(prompt.encode(), rest.encode()) for prompt, rest in texts]
    assert lm.log_likelihoods(texts) == lm.log_likelihoods(as_bytes)
    with pytest.raises(UserError, match="a continuation must be str or bytes, got int"):
        lm.score([("x", 3)])  # type: ignore[list-item]
