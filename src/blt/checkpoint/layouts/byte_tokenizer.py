"""Byte ids as a tokenizer of ``transformers``: a token a byte, no merges, BOS in front."""

from __future__ import annotations

from typing import Any

from blt.tokens.tokenizer import byte_characters
from blt.vocab import BOE, BOS, BPE, EOS, OFFSET

PADDING = "<pad>"  # has BOE's id, which no text has; masked where it stands
SPECIALS = {PADDING: BOE, "<s>": BOS, "</s>": EOS, "<bpe>": BPE}
LONGEST = 10**30  # transformers' "no limit"


def tokenizer_files() -> dict[str, dict[str, Any]]:
    """``tokenizer.json`` and ``tokenizer_config.json``, by name.

    A text that has ``</s>`` in it is read as the bytes of that: only the template puts specials.
    """
    return {"tokenizer.json": _tokenizer(), "tokenizer_config.json": _config()}


def generation_config() -> dict[str, Any]:
    """How ``generate`` of transformers is to be called: its cache for BLT is wrong."""
    return {"bos_token_id": BOS, "eos_token_id": EOS, "pad_token_id": BOE, "use_cache": False}


def _tokenizer() -> dict[str, Any]:
    flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
    added = [{"id": i, "content": text, **flags, "special": True} for text, i in SPECIALS.items()]
    bos, text = (
        {"SpecialToken": {"id": "<s>", "type_id": 0}},
        {"Sequence": {"id": "A", "type_id": 0}},
    )
    level = {
        "type": "ByteLevel",
        "add_prefix_space": False,
        "trim_offsets": True,
        "use_regex": False,
    }
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": added,
        "normalizer": None,
        "pre_tokenizer": level,
        "post_processor": {
            "type": "TemplateProcessing",
            "single": [bos, text],
            "pair": [bos, text, {"Sequence": {"id": "B", "type_id": 0}}],
            "special_tokens": {"<s>": {"id": "<s>", "ids": [BOS], "tokens": ["<s>"]}},
        },
        "decoder": level,
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": False,
            "byte_fallback": False,
            "vocab": SPECIALS | {char: b + OFFSET for b, char in enumerate(byte_characters())},
            "merges": [],
        },
    }


def _config() -> dict[str, Any]:
    return {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": "<s>",
        "eos_token": "</s>",
        "pad_token": PADDING,
        "padding_side": "right",
        "split_special_tokens": True,
        "clean_up_tokenization_spaces": False,
        "model_max_length": LONGEST,
    }
