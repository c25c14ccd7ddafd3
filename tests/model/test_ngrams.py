"""Hash n-grams of every family: what they are made of, and that all ways to read agree."""

from __future__ import annotations

from itertools import product
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import blt
from blt.checkpoint.convert import convert
from blt.errors import UserError
from blt.lm import ByteLM, TokenLM
from blt.model import transformer
from blt.model.config import TokenTransformerConfig
from blt.model.embedding import (
    PRIMES,
    NgramEmbedding,
    TokenByteNgrams,
    crowded,
    ngram_rows,
    rows_of_letters,
)
from blt.model.packing import Spans
from blt.model.prefix_tree import PrefixTree
from blt.tokens.tokenizer import ByteTokenizer
from blt.train.build import build_blt
from shapes import TINY, tiny_config

FOLDS = [(), ("case",), ("repeats",), ("case", "repeats")]
SIZES = (2, 3, 5)
GATES: list[dict[str, Any]] = [{}, {"hash_gate": True}, {"hash_gate": True, "hash_dim": 7}]
PARTS = [
    b"Hello",
    b"hello,",
    b"l",
    b"lo",
    b"h",
    b"e",
    b"he",
    b"the",
    b" theatre",
    b"LL",
    b"\n",
    b"\xc3",
]
TEXTS = [b"Hello, hello, HELLLO world!\n\nAaaa bbb\n" * 3, b"the theatre and the other thing " * 4]
BYTES = st.lists(st.sampled_from(list(b"aAbBlL \n\xc3")), max_size=40).map(bytes)
# Tokens that begin with the byte that the one before ends with.
WORDS = st.lists(st.sampled_from(PARTS), max_size=12).map(b"".join)


def slowly(ids: list[int], fold: tuple[str, ...], reach: int) -> list[list[int]]:
    """Ids that the n-grams of each id are made of, newest first: the definition."""
    found, counted = [], []
    for token in ids:
        capital = "case" in fold and ord("A") <= token - 4 <= ord("Z")
        seen = token + 32 if capital else token
        if not ("repeats" in fold and counted and counted[-1] == seen):
            counted.append(seen)
        found.append(([0] * reach + counted)[-reach:][::-1])
    return found


def byte_lm(fold: tuple[str, ...] = (), **changes: Any) -> ByteLM:
    torch.manual_seed(0)
    shape = {"dim": 16, "heads": 2, "layers": 2, "ff_dim": 32, "sliding_window": 8}
    tables = {"hash_ngram_sizes": SIZES, "hash_rows": 97, "hash_fold": fold}
    return ByteLM(blt.ByteTransformerConfig(**{**shape, **tables, **changes})).eval()


@pytest.fixture(scope="module")
def tokenizer() -> ByteTokenizer:
    return ByteTokenizer.train(TEXTS, 300)


def token_lm(tokenizer: ByteTokenizer, **changes: Any) -> TokenLM:
    torch.manual_seed(0)
    shape = {"vocab_size": 300, "dim": 16, "heads": 2, "layers": 1, "ff_dim": 32, "hash_rows": 97}
    return TokenLM(TokenTransformerConfig(**{**shape, **changes}), tokenizer).eval()


def test_models_without_tables_keep_the_names_of_their_parameters() -> None:
    assert "byte" in ByteLM(TINY).state_dict()
    assert not [name for name in ByteLM(TINY).state_dict() if "table" in name]
    assert "tables.ngram" in byte_lm().state_dict()
    assert list(blt.BLT(tiny_config()).encoder.embedding.state_dict()) == ["byte", "ngram"]


@pytest.mark.parametrize("fold", FOLDS)
@given(texts=st.lists(BYTES, min_size=1, max_size=4))
def test_ngrams_are_made_of_what_their_hash_sees(fold: tuple[str, ...], texts: list[bytes]) -> None:
    tables = NgramEmbedding(4, (5,), 1, 7, fold)
    documents = [blt.encode(text) for text in texts]
    spans = Spans.from_lengths([len(ids) for ids in documents])
    back = torch.stack(tables.back(torch.cat(documents), spans.positions), 1)
    assert back.tolist() == [row for ids in documents for row in slowly(ids.tolist(), fold, 5)]


@pytest.mark.parametrize("fold", FOLDS)
@given(texts=st.lists(WORDS, min_size=1, max_size=3))
def test_bytes_that_end_with_a_token_hash_as_in_the_document_as_bytes(
    tokenizer: ByteTokenizer, fold: tuple[str, ...], texts: list[bytes]
) -> None:
    tables = TokenByteNgrams(302, 4, (1, 6), 1, 7, fold)
    tables.spell(tokenizer.written())
    tokens = [[300, *tokenizer.encode(text), 301] for text in texts]
    spans = Spans.from_lengths([len(ids) for ids in tokens])
    flat = torch.tensor([i for ids in tokens for i in ids])
    found = torch.stack(tables.back(flat, spans.positions), 1).tolist()
    wanted = []
    for text, ids in zip(texts, tokens, strict=True):
        slow = slowly(blt.encode(text, eos=True).tolist(), fold, 6)
        ends = [len(tokenizer.decode(ids[1 : end + 1])) for end in range(len(ids) - 1)]
        wanted += [slow[end] for end in ends] + [slow[-1]]
    assert found == wanted


def test_ngrams_of_tokens_number_them_as_bytes_are_numbered(tokenizer: ByteTokenizer) -> None:
    lm = token_lm(tokenizer, hash_ngram_sizes=(2, 3))
    assert lm.tables is not None
    ids = torch.tensor([lm.bos, 0, 7, lm.eos])
    back = torch.stack(lm.tables.back(ids, torch.arange(4)), 1)
    assert back.tolist() == [[1, 0, 0], [4, 1, 0], [11, 4, 1], [2, 11, 4]]


def test_a_special_token_hashes_as_it_is_written() -> None:
    library = pytest.importorskip("tokenizers")
    made = library.Tokenizer.from_str(ByteTokenizer.train(TEXTS, 280).json)
    made.add_special_tokens(["<|end|>"])
    tokenizer = ByteTokenizer(made.to_str())
    tables = TokenByteNgrams(302, 4, (9,), 1, 7)
    tables.spell(tokenizer.written())
    ids = torch.tensor([300, *tokenizer.encode(b"a<|end|>"), 299])  # nobody's
    back = torch.stack(tables.back(ids, torch.arange(len(ids))), 1)
    assert back[-2].tolist() == [*reversed(blt.encode(b"a<|end|>").tolist())]
    assert back[-1, 0] == 3


@pytest.mark.parametrize("features", [None, 1, 24])
def test_a_gate_adds_what_the_stream_asks_for_after_the_first_layer(features: int | None) -> None:
    lm = byte_lm(hash_gate=True, hash_dim=features)
    plain = byte_lm(hash_ngram_sizes=(), hash_fold=())
    plain.load_state_dict({k: v for k, v in lm.state_dict().items() if k in plain.state_dict()})
    ids = blt.encode(TEXTS[0])
    spans = Spans.from_lengths([len(ids)])
    stack, gate = plain.transformer, lm.transformer.gate
    assert lm.tables is not None
    assert gate is not None
    assert lm.tables.ngram.shape[1] == (features or 16)
    with torch.no_grad():
        gate.key_norm.weight.uniform_(0.5, 2.0)
        gate.state_norm.weight.uniform_(0.5, 2.0)
        rows = lm.tables(lm.tables.back(ids, spans.positions))
        rope = stack.rope(spans)
        x, delta = stack.layers[0](plain.byte[ids], None, rope, spans)
        x = x + delta

        def normed(y: torch.Tensor, norm: Any) -> torch.Tensor:
            return y * (y.square().mean(-1, keepdim=True) + norm.eps).rsqrt() * norm.weight

        key = normed(rows @ gate.key.weight.T, gate.key_norm)
        fit = (normed(x, gate.state_norm) * key).sum(-1, keepdim=True) / 16**0.5
        x = x + torch.sigmoid(fit) * (rows @ gate.value.weight.T)
        x, delta = stack.layers[1](x, None, rope, spans)
        torch.testing.assert_close(lm.logits(ids), plain.head(plain.norm(x + delta)))


def test_the_embedding_adds_the_rows_of_all_ngrams() -> None:
    lm = byte_lm(("repeats",), hash_functions=2)
    ids = blt.encode(b"Helllo")
    assert lm.tables is not None
    for t, back in enumerate(slowly(ids.tolist(), ("repeats",), 5)):
        x = lm.byte[ids[t]].clone()
        for index, (prime, n) in enumerate(product(PRIMES[:2], SIZES)):
            exact = sum(token * prime**j for j, token in enumerate(reversed(back[:n])))
            wrapped = (exact + 2**63) % 2**64 - 2**63
            x += lm.tables.ngram[index * 97 + wrapped % 97]
        found = lm.embed_ids(ids, Spans.from_lengths([len(ids)]))[t]
        torch.testing.assert_close(found, x)


@pytest.mark.parametrize("fold", FOLDS)
@pytest.mark.parametrize("newline_reset", [False, True])
def test_entropies_are_those_of_whole_documents_in_any_pieces(
    fold: tuple[str, ...], newline_reset: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    lm = byte_lm(fold)
    documents = [blt.encode(text) for text in (*TEXTS, b"aaaaaaaaaaaaaaaaaaaaaaaaaaab", b"")]
    whole = lm.document_entropies(documents, newline_reset)
    monkeypatch.setattr(transformer, "PIECE", 20)
    pieces = lm.document_entropies(documents, newline_reset)
    for ids, a, b in zip(documents, whole, pieces, strict=True):
        torch.testing.assert_close(a, b)
        lines = [ids]
        if newline_reset:
            cuts = (ids == ord("\n") + 4).nonzero().flatten() + 1
            lines = [line for line in torch.tensor_split(ids, cuts) if len(line)]
        alone = torch.cat([transformer.entropy(lm.logits(line)) for line in lines])
        torch.testing.assert_close(a, alone)


@pytest.mark.parametrize("gate", GATES)
@pytest.mark.parametrize("fold", FOLDS)
def test_texts_that_share_a_start_are_scored_as_each_alone(
    tokenizer: ByteTokenizer, fold: tuple[str, ...], gate: dict[str, Any]
) -> None:
    start = b"Hello, aaaaaaaaaaaaaaaa theatre"
    texts = sorted(start + end for end in (b"", b"ee and", b"ee AND aaaa", b"EE other"))
    bytewise: dict[str, Any] = {"hash_of": "bytes", "hash_fold": fold, **gate}
    models: list[Any] = [
        byte_lm(fold, **gate),
        token_lm(tokenizer, hash_ngram_sizes=SIZES, **bytewise),
        blt.BLT(tiny_config(hash_fold=fold, entropy_model=byte_lm(fold).config, **gate)).eval(),
    ]
    if not fold:
        models.append(token_lm(tokenizer, hash_ngram_sizes=(2, 3), **gate))
    for lm in models:
        documents = sorted((lm.ids_of(text) for text in texts), key=torch.Tensor.tolist)
        tree = PrefixTree.of(documents)
        with torch.no_grad():
            found, alone = lm.tree_logits(tree), lm.packed_logits(documents)
        rows = torch.cat([tree.path(index) for index in range(len(documents))])
        torch.testing.assert_close(found[rows], alone, rtol=1e-4, atol=1e-4)


@settings(max_examples=10)
@given(data=BYTES)
def test_folds_make_equal_what_they_do_not_see(data: bytes) -> None:
    tables = NgramEmbedding(4, (4,), 1, 7, ("case", "repeats"))

    def last(text: bytes) -> list[int]:
        ids = blt.encode(text)
        return [int(x[-1]) for x in tables.back(ids, torch.arange(len(ids)))]

    assert last(data) == last(data.upper()) == last(b"".join(bytes([b]) * 3 for b in data))


@pytest.mark.parametrize("kind", ["byte", "token", "token bytes", "token wide"])
def test_a_model_with_tables_comes_back_from_its_folder(
    tokenizer: ByteTokenizer, tmp_path: Path, kind: str
) -> None:
    of: dict[str, Any] = {"hash_of": "bytes", "hash_fold": ("case",)} if "bytes" in kind else {}
    of |= {"hash_gate": True, "hash_dim": 5} if "wide" in kind else {}
    lm: Any = byte_lm() if kind == "byte" else token_lm(tokenizer, hash_ngram_sizes=(2, 4), **of)
    lm.save(tmp_path / "model")
    again = blt.load(tmp_path / "model")
    assert again.config == lm.config
    assert again.bits_per_byte(TEXTS[0]) == lm.bits_per_byte(TEXTS[0])


@pytest.mark.parametrize("to", ["transformers", "meta"])
def test_other_layouts_refuse_tables_that_they_do_not_have(
    tokenizer: ByteTokenizer, tmp_path: Path, to: Any
) -> None:
    within = blt.BLT(tiny_config(entropy_model=byte_lm().config))
    token = token_lm(tokenizer, hash_ngram_sizes=(2,))
    for name, lm, said in [
        ("byte", byte_lm(), "no hash n-gram tables .* of a byte transformer"),
        ("token", token, "no hash n-gram tables .* of a token transformer"),
        ("blt", within, "no hash n-gram tables .* of a byte .* train recipes/entropy-laptop.toml"),
        ("fold", blt.BLT(tiny_config(hash_fold=("case",))), "has no hash_fold"),
        ("gate", blt.BLT(tiny_config(hash_gate=True)), "has no hash_gate"),
    ]:
        lm.save(tmp_path / name)
        with pytest.raises(UserError, match=said):
            convert(tmp_path / name, tmp_path / "out", to)
        convert(tmp_path / name, tmp_path / f"{name} again", "blt")
        assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"hash_ngram_sizes": (33,)}, "hash_ngram_sizes"),
        ({"hash_fold": ("accents",)}, "hash_fold: case, repeats"),
        ({"hash_ngram_sizes": (), "hash_fold": ("case",)}, "hash_ngram_sizes names none"),
        ({"hash_ngram_sizes": (), "hash_gate": True}, "hash_ngram_sizes names none"),
        ({"hash_ngram_sizes": (), "hash_dim": 8}, "hash_ngram_sizes names none"),
        ({"hash_dim": 8}, "set hash_gate"),
        ({"hash_dim": 0, "hash_gate": True}, "hash_dim"),
        ({"hash_functions": 12}, "hash_functions"),
    ],
)
def test_impossible_tables_are_refused(changes: dict[str, Any], said: str) -> None:
    for config in (blt.Config, blt.ByteTransformerConfig, TokenTransformerConfig):
        with pytest.raises(UserError, match=said):
            config(**{"hash_ngram_sizes": (3,), **changes})
    with pytest.raises(UserError, match='set hash_of = "bytes"'):
        TokenTransformerConfig(hash_ngram_sizes=(3,), hash_fold=("case",))


@given(st.integers(1, 3), st.integers(1, 5000))
def test_rows_that_letters_fall_on_are_those_of_the_hash(size: int, rows: int) -> None:
    texts = [bytes(letters) for letters in product(range(96, 123), repeat=size)]
    grams = torch.stack([blt.encode(text, bos=False) for text in texts])
    found = ngram_rows([*grams.T], (size,), 1, rows).unique()
    assert rows_of_letters(size, rows) == len(found)


@pytest.mark.parametrize(
    ("rows", "size"), [(100000, 3), (50000, 3), (20000, 3), (50021, None), (500002, None)]
)
def test_tables_in_which_short_ngrams_share_rows_are_known(rows: int, size: int | None) -> None:
    assert crowded((3, 4, 8), 1, rows) == size
    shape = blt.Config()
    assert crowded(shape.hash_ngram_sizes, shape.hash_functions, shape.hash_rows) is None


def test_a_new_model_with_crowded_tables_is_warned_of(caplog: pytest.LogCaptureFixture) -> None:
    build_blt(tiny_config(hash_rows=20000, patching=blt.PatchingConfig(rule="space")), None)
    assert "hash_rows 20000: 3-grams of letters fall on 1803 rows only" in caplog.text
