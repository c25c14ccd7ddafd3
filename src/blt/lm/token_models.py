"""Transformers over tokens that are scored, and write, in bytes: baselines."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import groupby
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from blt import vocab
from blt.checkpoint.folders import TOKENIZER
from blt.errors import UserError
from blt.generate import tokens as token_generation
from blt.lm.language_model import LanguageModel
from blt.machine.runtime import keep_freed_memory
from blt.model.config import TokenTransformerConfig
from blt.model.embedding import TokenByteNgrams
from blt.model.language import Batch, Ready
from blt.model.packing import end_to_end
from blt.model.prefix_tree import PrefixTree
from blt.model.transformer import CausalTransformer
from blt.model.tree_logits import transformer_tree_logits
from blt.tokens.tokenizer import ByteTokenizer, Tokenizer


class TokenModel(LanguageModel):
    """What models over tokens have in common: they read, score and write bytes as the others do."""

    tokenizer: Tokenizer
    bos: int
    eos: int

    def ids_of(self, text: bytes) -> Tensor:
        return torch.tensor(
            [self.bos, *self.tokenizer.encode(text)], dtype=torch.int64, device="cpu"
        )

    def tokens_of(self, ids: Tensor) -> Tensor:
        """Ids over bytes [T] as the model's own: runs of bytes as tokens, its BOS and its EOS.

        Raises:
            UserError: another special id, which it does not have.
        """
        own = {vocab.BOS: self.bos, vocab.EOS: self.eos}
        found: list[int] = []
        for is_byte, run in groupby(ids.tolist(), lambda token_id: token_id >= vocab.OFFSET):
            if is_byte:
                found += self.tokenizer.encode(bytes(token_id - vocab.OFFSET for token_id in run))
                continue
            for token_id in run:
                if token_id not in own:
                    raise UserError(f"id {token_id}: a token model has no special ids but BOS, EOS")
                found.append(own[token_id])
        return torch.tensor(found, dtype=torch.int64, device="cpu")

    def first_of(self, prompt: bytes, ids: Tensor) -> int:
        """The token across the prompt's end, where there is one, belongs to what follows."""
        own = self.ids_of(prompt)
        same = [a == b for a, b in zip(own.tolist(), ids.tolist(), strict=False)]
        return same.index(False) if False in same else len(same)

    def logits(self, ids: Any) -> Any:
        raise UserError("a token model has no logits of bytes; use log_likelihoods")

    def generate(self, prompts: Any = b"", **options: Any) -> Any:
        """Continue prompts; without caches, for evaluation."""
        return token_generation.generate(self, prompts, **options)


class TokenLM(TokenModel, CausalTransformer):
    """A transformer over byte-level BPE tokens."""

    kind = "token"
    scoring_ids = 8192  # their logits are much wider than those of bytes
    config: TokenTransformerConfig
    tokenizer: ByteTokenizer

    def __init__(
        self, config: TokenTransformerConfig, tokenizer: ByteTokenizer | None = None
    ) -> None:
        keep_freed_memory()
        CausalTransformer.__init__(self, config)
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
        if isinstance(self.tables, TokenByteNgrams):
            self.tables.spell(tokenizer.written())

    def packed_logits(self, documents: Sequence[Tensor]) -> Tensor:
        """Documents, each token ids [T] → logits of all, end to end [M, vocab_size + 2]."""
        return self(*end_to_end(documents, self.device))  # type: ignore[no-any-return]

    def tree_logits(self, tree: PrefixTree) -> Tensor:
        return transformer_tree_logits(self, tree)

    def ready(self, batch: Batch) -> Ready:
        documents, targets, of_bytes = [], [], []
        wanted = batch.targets.split([len(byte_ids) for byte_ids in batch.documents])
        for byte_ids, byte_targets in zip(batch.documents, wanted, strict=True):
            ids = self.tokens_of(byte_ids)
            read_only = byte_targets[:-1] == vocab.PAD  # [ids behind BOS]
            tokens, spelled = self._read_tokens(ids[1:], read_only)
            documents.append(ids)
            targets.append(F.pad(ids[1:], (0, 1), value=vocab.PAD))
            targets[-1][:-1][tokens] = vocab.PAD
            of_bytes.append(byte_targets.clone())
            of_bytes[-1][:-1][spelled] = vocab.PAD
            of_bytes[-1][-1] = vocab.PAD  # what comes after a cut is no token yet
        size = batch.num_bytes / max(1, sum(map(len, documents)) - len(documents))
        ready = super().ready(Batch(documents, torch.cat(targets)))
        batch = replace(batch, targets=torch.cat(of_bytes))  # the bytes that are asked for
        return ready._replace(batch=batch, patch_size=size)

    def _read_tokens(self, ids: Tensor, read_only: Tensor) -> tuple[Tensor, Tensor]:
        """Which tokens have a byte that is not asked for  # [K] bool; all bytes of these  # [N].

        Args:
            ids: tokens and special ids  # [K]
            read_only: which of the bytes and special ids that they stand for are  # [N] bool
        """
        if not read_only.any():
            return torch.zeros_like(ids, dtype=torch.bool), read_only
        spelled = self.tokenizer.sizes
        sizes = [1 if i in (self.bos, self.eos) else spelled[i] for i in ids.tolist()]
        token_of = torch.repeat_interleave(torch.tensor(sizes, dtype=torch.int64, device="cpu"))
        tokens = torch.zeros_like(ids, dtype=torch.bool)
        tokens[token_of[read_only]] = True
        return tokens, tokens[token_of]

    def files(self) -> dict[str, str]:
        return {**super().files(), TOKENIZER: self.tokenizer.json}

    def read_files(self, folder: Path) -> None:
        super().read_files(folder)
        path = folder / TOKENIZER
        try:
            self.set_tokenizer(ByteTokenizer(path.read_text()))
        except (OSError, UserError) as error:
            raise UserError(f"{path}: {error}") from None
