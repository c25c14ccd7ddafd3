"""Models of transformers are measured as ours are, and every byte of a text counts."""

from __future__ import annotations

import json
import math
import shutil
import weakref
from pathlib import Path
from typing import Any

import pytest
import torch

import blt
from blt import cli
from blt.errors import UserError
from blt.evals import compare
from blt.evals.models import HFTokenLM, TextTokenizer, load
from blt.evals.rows import Options
from blt.scoring.bits import bits_per_byte
from blt.tokens.tokenizer import ByteTokenizer
from shapes import TINY
from texts import MULTILINGUAL

transformers = pytest.importorskip("transformers")
tokenizers = pytest.importorskip("tokenizers")
TEXT = MULTILINGUAL[:300] + b"\xff\xfe end"


def llama(vocab_size: int) -> Any:
    torch.manual_seed(0)
    return transformers.LlamaForCausalLM(
        transformers.LlamaConfig(
            vocab_size=vocab_size, hidden_size=16, intermediate_size=32, num_hidden_layers=2,
            num_attention_heads=2, num_key_value_heads=1,
        )
    )  # fmt: skip


def fast(tokenizer: Any, **special: str) -> Any:
    return transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer, **special)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Llama with byte-level BPE, an end-of-text token and a normalizer."""
    made = tokenizers.Tokenizer.from_str(ByteTokenizer.train([MULTILINGUAL], 400).json)
    made.add_special_tokens(["<|end|>"])
    made.normalizer = tokenizers.normalizers.NFC()
    path = tmp_path_factory.mktemp("llama")
    llama(401).save_pretrained(path)
    fast(made, eos_token="<|end|>").save_pretrained(path)
    return path


def test_a_tokenizer_that_is_not_the_models_is_named(folder: Path, tmp_path: Path) -> None:
    llama(300).save_pretrained(tmp_path)
    load(folder)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (tmp_path / name).write_bytes((folder / name).read_bytes())
    with pytest.raises(UserError, match="gives token 400, the model has only 300"):
        load(tmp_path).bits_per_byte(TEXT)


def test_bits_count_every_byte_from_the_first_token_on(folder: Path) -> None:
    lm = load(folder)
    assert isinstance(lm, HFTokenLM)
    ids = torch.tensor([400, *lm.tokenizer.encode(TEXT)])
    assert lm.tokenizer.decode(ids[1:].tolist()) == TEXT
    with torch.no_grad():
        log_p = lm.model(ids[None]).logits[0].log_softmax(-1)
    bits = -float(log_p[:-1].gather(1, ids[1:, None]).sum()) / math.log(2)
    assert lm.bits_per_byte(TEXT) == pytest.approx(bits / len(TEXT), rel=1e-4)
    assert bits_per_byte(lm, [TEXT]) == pytest.approx(bits / len(TEXT), rel=1e-4)


def test_a_model_stored_in_bfloat16_is_computed_in_float32(folder: Path, tmp_path: Path) -> None:
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16)
    model.save_pretrained(tmp_path)
    transformers.AutoTokenizer.from_pretrained(folder).save_pretrained(tmp_path)
    lm = load(tmp_path)
    assert {parameter.dtype for parameter in lm.parameters()} == {torch.float32}


def test_texts_are_worth_the_same_however_they_are_batched(folder: Path) -> None:
    lm = load(folder)
    pairs = [(TEXT[:at], TEXT[at : at + 40]) for at in (0, 10, 100, 5)]
    together = lm.log_likelihoods(pairs)
    assert together == pytest.approx([lm.log_likelihoods([p])[0] for p in pairs], rel=1e-4)


def test_a_batch_is_no_larger_than_it_may_be(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lm, sizes = load(folder), []
    packed = lm.packed_logits

    def watched(documents: Any) -> Any:
        sizes.append(sum(map(len, documents)))
        return packed(documents)

    monkeypatch.setattr(lm, "packed_logits", watched)
    monkeypatch.setattr(HFTokenLM, "scoring_ids", 200)
    lm.log_likelihoods([(MULTILINGUAL[:90], b" and") for _ in range(20)])
    assert max(sizes) <= 200


def test_greedy_text_is_that_of_transformers(folder: Path) -> None:
    lm = load(folder)
    assert isinstance(lm, HFTokenLM)
    prompts = [b"All human beings", b"Tous les"]
    for prompt, found in zip(prompts, lm.generate(prompts, max_bytes=30), strict=True):
        ids = lm.ids_of(prompt)[None]
        theirs = lm.model.generate(
            ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=30,
            pad_token_id=400,
        )  # fmt: skip
        written = [token for token in theirs[0, ids.shape[1] :].tolist() if token != 400]
        assert lm.tokenizer.decode(written)[:30] == found.data
    stopped = lm.generate(prompts[0], max_bytes=30, stop=lm.generate(prompts[0]).text[2])
    assert (len(stopped.data), stopped.finish_reason) == (2, "stop")


def test_a_sentencepiece_tokenizer_counts_bytes_that_are_no_text() -> None:
    names = [f"<0x{byte:02X}>" for byte in range(256)]
    vocab = {name: i for i, name in enumerate(["<unk>", *names, "▁", "a", "b", "▁a"])}
    model = tokenizers.models.BPE(vocab, [("▁", "a")], unk_token="<unk>", byte_fallback=True)
    made = tokenizers.Tokenizer(model)
    made.normalizer = tokenizers.normalizers.Replace(" ", "▁")
    made.decoder = tokenizers.decoders.Sequence(
        [
            tokenizers.decoders.Replace("▁", " "),
            tokenizers.decoders.ByteFallback(),
            tokenizers.decoders.Fuse(),
        ]
    )
    lm = HFTokenLM(llama(len(vocab)), fast(made, eos_token="<unk>"))
    assert isinstance(lm.tokenizer, TextTokenizer)
    assert lm.tokenizer.encode("b aé".encode()) == [259, 260, 0xC3 + 1, 0xA9 + 1]
    assert lm.tokenizer.encode(b"\xffa") == [256, 258]
    assert lm.bits_per_byte(TEXT) > 0
    made.normalizer = tokenizers.normalizers.Lowercase()
    with pytest.raises(UserError, match="changes text such as 'A'"):
        TextTokenizer(fast(made)).encode(b"A")


def test_a_space_at_the_start_of_a_token_and_bytes_that_are_no_text_are_written() -> None:
    """Decoders of Llama 2's kind leave out the one, and make U+FFFD of the others."""
    names = [f"<0x{byte:02X}>" for byte in range(256)]
    vocab = {name: i for i, name in enumerate(["<unk>", *names, "▁", "a", "b", "▁a"])}
    model = tokenizers.models.BPE(vocab, [("▁", "a")], unk_token="<unk>", byte_fallback=True)
    made = tokenizers.Tokenizer(model)
    replaced = tokenizers.normalizers.Replace(" ", "▁")
    made.normalizer = tokenizers.normalizers.Sequence(
        [tokenizers.normalizers.Prepend("▁"), replaced]
    )
    made.decoder = tokenizers.decoders.Sequence(
        [
            tokenizers.decoders.Replace("▁", " "),
            tokenizers.decoders.ByteFallback(),
            tokenizers.decoders.Fuse(),
            tokenizers.decoders.Strip(content=" ", left=1),
        ]
    )
    lm = HFTokenLM(llama(len(vocab)), fast(made, eos_token="<unk>"))
    assert lm.tokenizer.encode(b"a b") == [260, 257, 259]  # a space is put in front
    assert lm.tokenizer.decode([260, 259]) == b" ab"
    assert lm.tokenizer.decode([0xFF + 1, 0xFE + 1, 258]) == b"\xff\xfea"
    assert lm.bits_per_byte(TEXT) > 0
    with torch.no_grad():  # after whatever: the token with a space in front
        lm.model.lm_head.weight.zero_()
        lm.model.lm_head.weight[260] = 1e3 * lm.model.model.norm.weight.sign()
        first = lm.generate(b"b", max_bytes=4)
        lm.model.lm_head.weight.neg_()
        second = lm.generate(b"b", max_bytes=4)
    assert b" a a" in (first.data, second.data)


def test_more_tokens_than_learned_positions_are_refused_and_turned_ones_are_not() -> None:
    shape = {"vocab_size": 401, "n_positions": 8, "n_embd": 16, "n_layer": 1, "n_head": 2}
    byte_level = ByteTokenizer.train([MULTILINGUAL], 390)
    made = fast(tokenizers.Tokenizer.from_str(byte_level.json), eos_token="a")
    learned = transformers.GPT2LMHeadModel(transformers.GPT2Config(**shape))
    with pytest.raises(UserError, match=r"has learned 8 positions.*--context-bytes"):
        HFTokenLM(learned, made).bits_per_byte(TEXT)
    turned = llama(401)
    turned.config.max_position_embeddings = 8
    assert HFTokenLM(turned, made).bits_per_byte(TEXT) > 0


def test_a_blt_of_transformers_is_ours(tmp_path: Path) -> None:
    from benchmarks.shape import transformers_model
    from shapes import TINY_BLT

    theirs = transformers_model(TINY_BLT)
    theirs.save_pretrained(tmp_path / "hf")
    expected = blt.from_transformers(theirs).bits_per_byte(TEXT)
    assert load(tmp_path / "hf").bits_per_byte(TEXT) == pytest.approx(expected, rel=1e-5)


def test_damaged_weights_are_named(folder: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(folder, tmp_path / "copy"))
    weights = copy / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(UserError, match="copy: transformers cannot load it"):
        load(copy)


def test_one_model_is_gone_before_the_next_one_is_loaded(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours, text = tmp_path / "ours", tmp_path / "text.txt"
    blt.ByteLM(TINY).save(ours)
    text.write_bytes(TEXT)
    there: list[weakref.ref[Any]] = []

    def watched(*arguments: Any) -> Any:
        assert [one() for one in there] == [None] * len(there)
        model = load(*arguments)
        there.append(weakref.ref(model))
        return model

    monkeypatch.setattr(compare, "load", watched)
    folders, options = [str(ours), str(folder)], Options(max_bytes=100)
    assert len(list(compare.compare("bpb", folders, [str(text)], options, "cpu"))) == 2
    assert len(there) == 2


def test_the_command_takes_a_token_model(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = tmp_path / "text.txt"
    text.write_bytes(TEXT)
    assert cli.main(["eval", "bpb", str(text), "--model", str(folder), "--json"]) == 0
    row = json.loads(capsys.readouterr().out)
    lm = load(folder)
    assert row["bits_per_byte"] == pytest.approx(lm.bits_per_byte(TEXT), rel=1e-4)
    assert isinstance(lm, HFTokenLM)
    assert row["bytes_per_patch"] == len(TEXT) / len(lm.tokenizer.encode(TEXT))
    (tmp_path / "config.json").write_text('{"model_type": "llama"}')
    assert cli.main(["eval", "bpb", str(text), "--model", str(tmp_path)]) == 2
    assert "transformers cannot load it" in capsys.readouterr().err
