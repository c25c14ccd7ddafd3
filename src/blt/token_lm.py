"""A language model over tokens, with the interface of those over bytes, for comparison."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from blt import vocab
from blt.data.loader import Batch
from blt.errors import UserError
from blt.lm import LanguageModel, Prediction
from blt.machine.runtime import keep_freed_memory
from blt.model.config import TokenTransformerConfig
from blt.model.packing import Spans
from blt.model.prefix_tree import PrefixTree
from blt.model.token_transformer import TokenTransformer
from blt.tokens.tokenizer import ByteTokenizer, Tokenizer

TOKENIZER = "tokenizer.json"  # beside config.json


class TokenModel(LanguageModel):
    """What models over tokens have in common: they read, score and write bytes as the others do."""

    tokenizer: Tokenizer
    bos: int
    eos: int

    def ids_of(self, text: bytes) -> Tensor:
        return torch.tensor(
            [self.bos, *self.tokenizer.encode(text)], dtype=torch.int64, device="cpu"
        )

    def first_of(self, prompt: bytes, ids: Tensor) -> int:
        return min(len(self.ids_of(prompt)), len(ids))

    def logits(self, ids: Any) -> Any:
        raise UserError("a token model has no logits of bytes; use log_likelihoods")

    def generate(self, prompts: Any = b"", **options: Any) -> Any:
        """Continue prompts; without caches, for evaluation."""
        from blt.tokens.generation import generate

        return generate(self, prompts, **options)


class TokenLM(TokenModel, TokenTransformer):
    """A transformer over byte-level BPE tokens."""

    kind = "token"
    scoring_ids = 8192  # their logits are much wider than those of bytes
    config: TokenTransformerConfig
    tokenizer: ByteTokenizer

    def __init__(
        self, config: TokenTransformerConfig, tokenizer: ByteTokenizer | None = None
    ) -> None:
        keep_freed_memory()
        TokenTransformer.__init__(self, config)
        self.bos, self.eos = config.vocab_size, config.vocab_size + 1
        if tokenizer is not None:
            self.set_tokenizer(tokenizer)

    def set_tokenizer(self, tokenizer: ByteTokenizer) -> None:
        if tokenizer.vocab_size > self.config.vocab_size:
            raise UserError(
                f"the tokenizer has {tokenizer.vocab_size} tokens, the model only "
                f"{self.config.vocab_size}; set token_model.vocab_size"
            )
        self.tokenizer = tokenizer

    def packed_logits(self, documents: Sequence[Tensor]) -> Tensor:
        """Documents, each token ids [T] → logits of all, end to end [M, vocab_size + 2]."""
        spans = Spans.from_lengths([len(ids) for ids in documents], self.device)
        return self(torch.cat(list(documents)), spans)  # type: ignore[no-any-return]

    def tree_logits(self, tree: PrefixTree) -> Tensor:
        caches = [tree.branches.attention(None)] * self.transformer.depth
        return self(tree.ids, tree.branches.spans, caches)  # type: ignore[no-any-return]

    def predict(self, batch: Batch) -> Prediction:
        documents, targets = [], []
        for byte_ids in batch.documents:
            ids = self.ids_of(vocab.decode(byte_ids)).to(self.device)
            if int(byte_ids[-1]) == vocab.EOS:
                ids = F.pad(ids, (0, 1), value=self.eos)
            documents.append(ids)
            targets.append(F.pad(ids[1:], (0, 1), value=vocab.PAD))
        tokens = sum(map(len, documents)) - len(documents)
        size = batch.num_bytes / max(1, tokens)
        return Prediction(self.packed_logits(documents), torch.cat(targets), size)

    def files(self) -> dict[str, str]:
        return {TOKENIZER: self.tokenizer.json}

    def read_files(self, folder: Path) -> None:
        path = folder / TOKENIZER
        try:
            self.set_tokenizer(ByteTokenizer(path.read_text()))
        except (OSError, UserError) as error:
            raise UserError(f"{path}: {error}") from None
