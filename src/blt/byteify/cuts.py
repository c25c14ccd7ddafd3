"""Patches where the source's tokens end, known one byte late.

That a token has ended shows in the byte after it, such as a space, and hardly before. So a patch
starts after the first byte of a token: it holds the rest of that token and the first byte of the
next one, and comes with the token whose rest it holds. A text's first patch, BOS, comes with the
source's BOS, and its second one, which has to start with the first byte, with all of the first
token.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import accumulate
from typing import NamedTuple

import torch
from torch import Tensor

from blt import vocab
from blt.patching import PatchingConfig
from blt.patching.tables import lookup_entropies
from blt.patching.thresholds import table_threshold
from blt.patching.views import mean_patch_size
from blt.tokens.tokenizer import ByteTokenizer


class Tokens(NamedTuple):
    """A document, T ids, as the source reads it."""

    tokens: list[int]  # of its text [M], without BOS and EOS
    firsts: list[int]  # the position of each token's first byte [M], from 1
    decisions: Tensor  # [T + 1] bool; [t] whether a patch starts at position t


def tokens_of(tokenizer: ByteTokenizer, ids: Tensor) -> Tokens:
    """A document cut by a tokenizer.

    Args:
        ids: [T] the document, BOS first, on the CPU; perhaps EOS last.
    """
    tokens = tokenizer.encode(vocab.decode(ids))
    firsts = list(accumulate((tokenizer.sizes[token] for token in tokens), initial=1))
    ends = firsts if int(ids[-1]) == vocab.EOS else firsts[:-1]  # EOS is a token too
    decisions = torch.zeros(len(ids) + 1, dtype=torch.bool, device="cpu")
    decisions[:2] = True
    decisions[torch.tensor(ends[1:], dtype=torch.int64, device="cpu") + 1] = True
    return Tokens(tokens, firsts[:-1], decisions)


def learn_table(
    tokenizer: ByteTokenizer, documents: Sequence[Tensor], target: float, config: PatchingConfig
) -> tuple[PatchingConfig, Tensor]:
    """A table for the rule "lookup" that cuts much as :func:`tokens_of` does.

    Its score of the last n bytes is how often a token began with the last of them, and what is
    above a threshold starts a patch.

    Args:
        documents: ids [T] each, BOS first.
        target: bytes per patch; 0: as many as a token has.
        config: of the rule.

    Returns:
        the config with the threshold, and the table [260 ** order] bool.

    Raises:
        UserError: no text.
    """
    decided = [tokens_of(tokenizer, ids).decisions for ids in documents]
    taught = [(ids, known[1:].float()) for ids, known in zip(documents, decided, strict=True)]
    scores = lookup_entropies(taught, config.lookup_order)
    if target == 0:
        patches = sum(int(known[:-1].sum()) for known in decided)
        target = max(1.0, mean_patch_size(sum(map(len, documents)), patches, len(documents)))
    threshold = table_threshold(scores, documents, target, config.max_patch_length)
    return replace(config, threshold=threshold), scores > threshold
