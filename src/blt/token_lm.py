"""A language model over tokens, with the interface of those over bytes, for comparison."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from blt import vocab
from blt.data.loader import Batch
from blt.errors import UserError
from blt.lm import LanguageModel, Prediction
from blt.model.config import TokenTransformerConfig
from blt.model.packing import Spans
from blt.model.token_transformer import TokenTransformer
from blt.runtime import keep_freed_memory
from blt.tokens import ByteTokenizer

TOKENIZER = "tokenizer.json"  # beside config.json


class TokenLM(LanguageModel, TokenTransformer):
    """A transformer over byte-level BPE tokens; it reads and scores bytes as the others do."""

    kind = "token"
    config: TokenTransformerConfig
    tokenizer: ByteTokenizer

    def __init__(
        self, config: TokenTransformerConfig, tokenizer: ByteTokenizer | None = None
    ) -> None:
        keep_freed_memory()
        TokenTransformer.__init__(self, config)
        if tokenizer is not None:
            self.set_tokenizer(tokenizer)

    def set_tokenizer(self, tokenizer: ByteTokenizer) -> None:
        if tokenizer.vocab_size > self.config.vocab_size:
            raise UserError(
                f"the tokenizer has {tokenizer.vocab_size} tokens, the model only "
                f"{self.config.vocab_size}; set token_model.vocab_size"
            )
        self.tokenizer = tokenizer

    @property
    def bos(self) -> int:
        return self.config.vocab_size

    @property
    def eos(self) -> int:
        return self.config.vocab_size + 1

    def encode(self, document: Tensor) -> list[int]:
        """Byte ids [T] of a document, BOS first, → its token ids, BOS first, EOS if it ends."""
        ids = [self.bos, *self.tokenizer.encode(vocab.decode(document))]
        return [*ids, self.eos] if len(document) and int(document[-1]) == vocab.EOS else ids

    def predict(self, batch: Batch) -> Prediction:
        documents = [self.encode(ids) for ids in batch.documents]
        logits, targets = self._forward(documents)
        tokens = sum(map(len, documents)) - len(documents)
        return Prediction(logits, targets, batch.num_bytes / max(1, tokens))

    @torch.no_grad()
    def nats(self, pieces: Sequence[bytes]) -> float:
        logits, targets = self._forward([self.encode(vocab.encode(piece)) for piece in pieces])
        return float(
            F.cross_entropy(logits.float(), targets, ignore_index=vocab.PAD, reduction="sum")
        )

    def _forward(self, documents: Sequence[list[int]]) -> tuple[Tensor, Tensor]:
        """Logits [M, V] after every token, and the token that comes next [M], PAD for none."""
        flat = torch.tensor([i for document in documents for i in document], device=self.device)
        spans = Spans.from_lengths([len(document) for document in documents], self.device)
        targets = F.pad(flat[1:], (0, 1), value=vocab.PAD)
        targets[[end - 1 for _, end in pairwise(spans.offsets)]] = vocab.PAD
        return self(flat, spans), targets

    def files(self) -> dict[str, str]:
        return {TOKENIZER: self.tokenizer.json}

    def read_files(self, folder: Path) -> None:
        path = folder / TOKENIZER
        try:
            self.set_tokenizer(ByteTokenizer(path.read_text()))
        except (OSError, UserError) as error:
            raise UserError(f"{path}: {error}") from None
