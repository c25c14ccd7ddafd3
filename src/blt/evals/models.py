"""Every model that can be evaluated: ours, a BLT of transformers, a token model of transformers."""

from __future__ import annotations

import json
import os
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

import blt
from blt.checkpoint.folders import CONFIG, FORMAT, TOKENIZER
from blt.errors import UserError, needed, require
from blt.lm import LanguageModel, TokenModel
from blt.tokens.tokenizer import ByteTokenizer, Tokenizer, readable_runs

SPACE, BYTE = "▁", "<0x{:02X}>"  # as SentencePiece has them in tokens


def load(
    folder: str | os.PathLike[str], adapter: str | os.PathLike[str] | None = None
) -> LanguageModel:
    """A model of this project, or a folder of transformers with a BLT or a token model.

    Args:
        adapter: as of :func:`blt.load`; for a model of this project.

    Raises:
        UserError: no model there, or one that cannot be evaluated; says why.
    """
    kind = _model_type(Path(folder) / CONFIG)
    if kind in (None, "blt"):  # in any layout
        return blt.load(folder, adapter=adapter)
    require(
        adapter is None,
        f"{adapter}: adapters are added to models of ours and to a BLT of transformers, and "
        f"{folder} is {kind}; merge it into that with peft, and name the result",
    )
    library = needed("transformers", "convert", "this model needs transformers")
    try:
        # Stored in bfloat16 it would be computed in it, also where float32 is asked for.
        model = library.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
        tokenizer = library.AutoTokenizer.from_pretrained(folder)
    except (OSError, ValueError, KeyError, RuntimeError, ImportError, SafetensorError) as error:
        raise UserError(f"{folder}: transformers cannot load it ({error})") from None
    return HFTokenLM(model, tokenizer).eval()


class Reader(NamedTuple):
    """How a token model reads a text: as tokens, with one before them and one behind."""

    tokenizer: Tokenizer
    bos: int
    eos: int


def reader_of(folder: str | os.PathLike[str]) -> Reader:
    """How the token model in a folder reads; its weights are left alone.

    Raises:
        UserError: no tokenizer there, or one that cannot be used; says why.
    """
    config = json.loads((Path(folder) / CONFIG).read_text())
    if config.get("format") == FORMAT:
        path, size = Path(folder) / TOKENIZER, config["model"]["vocab_size"]
        require(path.is_file(), f"{path}: missing; restore it")
        return Reader(ByteTokenizer(path.read_text()), size, size + 1)
    library = needed("transformers", "convert", "this model needs transformers")
    try:
        tokenizer = library.AutoTokenizer.from_pretrained(folder)
    except (OSError, ValueError, KeyError, ImportError) as error:
        raise UserError(f"{folder}: transformers cannot load it ({error})") from None
    return _reader(tokenizer)


def _reader(tokenizer: Any) -> Reader:
    """Of a tokenizer of transformers; without a BOS, its EOS is before a text."""
    found = [i for i in (tokenizer.bos_token_id, tokenizer.eos_token_id) if i is not None]
    if not found:
        raise UserError("the tokenizer has neither BOS nor EOS to begin a text with")
    return Reader(_lossless(tokenizer), found[0], found[-1])


def _model_type(path: Path) -> str | None:
    """What transformers calls the model; None for a folder of ours, or none at all."""
    try:
        config = json.loads(path.read_text())
    except (OSError, ValueError):
        return None
    return config.get("model_type") if isinstance(config, dict) else None


class HFTokenLM(TokenModel):
    """A causal language model of transformers, with its tokenizer.

    A document begins with the tokenizer's BOS, or its EOS where it has none, so that the first
    token is predicted too and every byte of a text is counted.
    """

    kind = "transformers"
    scoring_ids = 2048  # logits over large vocabularies
    shares_prefixes = False

    def __init__(self, model: Any, tokenizer: Any) -> None:
        super().__init__()
        self.model = model
        self.tokenizer: Tokenizer
        self.tokenizer, self.bos, self.eos = _reader(tokenizer)

    def packed_logits(self, documents: Any) -> Tensor:
        """Token ids, each [T] → logits of all, end to end [M, V]."""
        padded = pad_sequence(list(documents), batch_first=True)  # behind: nobody looks there
        size = self.model.get_input_embeddings().num_embeddings
        if padded.numel() and (largest := int(padded.max())) >= size:
            raise UserError(
                f"the tokenizer gives token {largest}, the model has only {size}; do they belong "
                "together?"
            )
        most = self._most_positions
        if most is not None and padded.shape[1] > most:
            raise UserError(
                f"a piece of {padded.shape[1]} tokens, and the model has learned {most} positions; "
                "take shorter pieces (--context-bytes)"
            )
        logits = self.model(input_ids=padded, use_cache=False).logits
        return torch.cat([row[: len(ids)] for row, ids in zip(logits, documents, strict=True)])

    @cached_property
    def _most_positions(self) -> int | None:
        """Of a model that has a learned row for each; None: others read on beyond them."""
        most: int | None = getattr(self.model.config, "max_position_embeddings", None)
        words = self.model.get_input_embeddings()
        tables = (m for m in self.model.modules() if isinstance(m, nn.Embedding) and m is not words)
        sizes = [table.num_embeddings for table in tables]
        # Some keep two rows in front for themselves.
        return most if most is not None and {most, most + 2} & {*sizes} else None

    def piece_nats(self, pieces: Any) -> list[float]:
        return [-log_p for log_p in self.log_likelihoods([(b"", piece) for piece in pieces])]


def _lossless(tokenizer: Any) -> Tokenizer:
    """A tokenizer of transformers, for bytes."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        raise UserError(f"{type(tokenizer).__name__}: only tokenizers with a tokenizer.json")
    described = json.loads(backend.to_str())
    if (described.get("normalizer") or {}).get("type") in ("NFC", "NFKC", "NFD", "NFKD"):
        described["normalizer"] = None  # bytes are scored as they are
    try:
        return ByteTokenizer(json.dumps(described))
    except UserError:
        return TextTokenizer(tokenizer)


class TextTokenizer:
    """Any tokenizer of transformers, for text that it gives back as it was.

    Bytes that are not UTF-8 become its byte tokens (``<0xFF>``). Where spaces are ``▁`` in tokens,
    as SentencePiece has it, tokens are decoded one by one: transformers' own decoding leaves out
    the space that tokens from within a text begin with, and makes U+FFFD of bytes.
    """

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        decoder = json.loads(tokenizer.backend_tokenizer.to_str()).get("decoder")
        self._marks_spaces = SPACE in json.dumps(decoder, ensure_ascii=False)

    def encode(self, data: bytes) -> list[int]:
        """Token ids.

        Raises:
            UserError: text that the tokenizer changes, or bytes that it has no tokens for.
        """
        ids: list[int] = []
        for part in readable_runs(data):
            ids += self._text(part) if isinstance(part, str) else map(self._byte, part)
        return ids

    def decode(self, ids: Any) -> bytes:
        if not self._marks_spaces:
            text: str = self._tokenizer.decode(ids, clean_up_tokenization_spaces=False)
            return text.encode()
        tokens: list[str] = self._tokenizer.convert_ids_to_tokens(list(ids))
        return b"".join(map(_bytes_of, tokens))

    @cached_property
    def known(self) -> list[int]:
        return sorted(self._tokenizer.get_vocab().values())

    def _text(self, text: str) -> list[int]:
        ids: list[int] = self._tokenizer.encode(text, add_special_tokens=False)
        # A text may get a space in front, which stands for nothing of it.
        if self.decode(ids) not in (text.encode(), f" {text}".encode()):
            raise UserError(
                f"the tokenizer changes text such as {text[:40]!r}, so its bytes cannot be counted"
            )
        return ids

    def _byte(self, byte: int) -> int:
        name = BYTE.format(byte)
        found: int | None = self._tokenizer.get_vocab().get(name)
        if found is None:
            raise UserError(f"the tokenizer has no token for the byte {name}, which is not UTF-8")
        return found


def _bytes_of(token: str) -> bytes:
    """What a token of SentencePiece stands for."""
    if len(token) == len(BYTE.format(0)) and token.startswith("<0x") and token.endswith(">"):
        return bytes.fromhex(token[3:5])
    return token.replace(SPACE, " ").encode()
