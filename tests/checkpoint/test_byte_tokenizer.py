"""A converted folder works with transformers' Auto classes and pipeline, and its ids are ours."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import blt
from blt.checkpoint.convert import convert
from shapes import random_blt

transformers = pytest.importorskip("transformers")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("converted")
    random_blt().save(place / "ours")
    convert(place / "ours", place / "theirs", "transformers")
    return place / "theirs"


@pytest.fixture(scope="module")
def tokenizer(folder: Path) -> Any:
    return transformers.AutoTokenizer.from_pretrained(folder)


@given(
    st.text(max_size=40)
    | st.sampled_from(["a</s>b", "<s>", "<pad> <bpe>", " x  \r\n\t", "e\u0301"])
)
def test_any_text_has_the_ids_that_it_has_here_and_comes_back(tokenizer: Any, text: str) -> None:
    ids = tokenizer(text).input_ids
    assert ids == blt.encode(text).tolist()
    assert tokenizer.decode(ids, skip_special_tokens=True) == text


def test_every_byte_is_a_token_and_what_is_no_text_is_replaced(tokenizer: Any) -> None:
    assert len(tokenizer) == blt.vocab.VOCAB_SIZE
    for byte in range(256):
        expected = bytes([byte]).decode("utf-8", "replace")
        assert tokenizer.decode([byte + blt.vocab.OFFSET]) == expected
    specials = [tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id]
    assert specials == [blt.vocab.BOS, blt.vocab.EOS, blt.vocab.BOE]


def test_a_pipeline_writes_what_generate_writes(folder: Path) -> None:
    write = transformers.pipeline("text-generation", model=str(folder))
    found = write("The old man", max_new_tokens=12, min_new_tokens=12, do_sample=False)
    ours = blt.load(folder).generate("The old man", max_bytes=12, temperature=0, ignore_eos=True)
    assert found[0]["generated_text"] == "The old man" + ours.text


def test_padding_behind_a_text_changes_nothing_in_it(folder: Path, tokenizer: Any) -> None:
    model = transformers.AutoModelForCausalLM.from_pretrained(folder).eval()
    assert model.generation_config.use_cache is False
    batch = tokenizer(["The old man and the sea", "ab"], padding=True, return_tensors="pt")
    with torch.no_grad():
        logits = model(**batch, use_cache=False).logits[1, :3]
    assert torch.allclose(logits, blt.load(folder).logits(blt.encode("ab")), atol=1e-4)
