"""Log-probabilities of continuations, with what they share at their start read once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from blt import vocab
from blt.model.language import CausalLM, Score
from blt.model.prefix_tree import PrefixTree, shared_ids


@torch.no_grad()
def score(lm: CausalLM, pairs: Sequence[tuple[vocab.Text, vocab.Text]]) -> list[Score]:
    """What ``lm`` says about each continuation after its prompt; see ``lm.score``."""
    prompts = [vocab.to_bytes(prompt, "a prompt") for prompt, _ in pairs]
    rests = [vocab.to_bytes(rest, "a continuation") for _, rest in pairs]
    documents = [lm.ids_of(prompt + rest) for prompt, rest in zip(prompts, rests, strict=True)]
    firsts = [lm.first_of(prompt, ids) for prompt, ids in zip(prompts, documents, strict=True)]
    order = sorted(range(len(pairs)), key=lambda index: _sortable(documents[index]))
    found = [Score(0.0, True)] * len(pairs)
    for group in _groups(order, documents, lm):
        together = [documents[index].to(lm.device) for index in group]
        logits, rows = _logits(lm, together)
        for index, ids, row in zip(group, together, rows, strict=True):
            found[index] = _score(logits, row, ids, firsts[index])
    return found


def _sortable(ids: Tensor) -> bytes:
    """In the order of ids."""
    return ids.numpy().astype(">i4").tobytes()


def _groups(order: Sequence[int], documents: Sequence[Tensor], lm: CausalLM) -> Iterator[list[int]]:
    """Neighbours with about as many ids to read as ``lm`` wants, and at least one document."""
    group: list[int] = []
    size = 0
    for index in order:
        ids = documents[index]
        new = len(ids)
        if group and lm.shares_prefixes:
            new -= shared_ids(documents[group[-1]], ids)
        if group and size + new > lm.scoring_ids:
            yield group
            group, size, new = [], 0, len(ids)
        group.append(index)
        size += new
    if group:
        yield group


def _logits(lm: CausalLM, documents: Sequence[Tensor]) -> tuple[Tensor, list[Tensor]]:
    """Logits of all rows [N, V], and which of them are each document's  # [T] each."""
    if not lm.shares_prefixes:
        lengths = [len(ids) for ids in documents]
        return lm.packed_logits(documents), list(
            torch.arange(sum(lengths), dtype=torch.int64, device="cpu").split(lengths)
        )
    tree = PrefixTree.of(documents)
    return lm.tree_logits(tree), [tree.path(index) for index in range(len(documents))]


def _score(logits: Tensor, rows: Tensor, ids: Tensor, first: int) -> Score:
    """The score of ids from ``first`` on."""
    before = logits[rows[first - 1 : -1].to(logits.device)].float()
    wanted = ids[first:, None]
    log_p = before.log_softmax(-1).gather(1, wanted).sum(dtype=torch.float64)
    return Score(float(log_p), bool((before.argmax(-1) == wanted[:, 0]).all()))
