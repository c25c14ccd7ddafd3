"""Boundaries of a whole document, by any rule.

Rules decide about the next position, so there is one decision more than there are positions:
whether a patch would open right after the last byte.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from blt.patching.rules import RULES, PatchingConfig, Rule


def rule_of(
    config: PatchingConfig,
    table: Tensor | None = None,
    token_offsets: Callable[[bytes], Sequence[int]] | None = None,
) -> Rule:
    """The rule that a config names.

    Raises:
        ValueError: it lacks its table or tokenizer.
    """
    rule = RULES[config.rule](config, table, token_offsets)
    missing = {"table": table is None, "tokenizer": token_offsets is None}
    if missing.get(rule.needs or "", False):
        raise ValueError(f"patching rule {config.rule!r} needs a {rule.needs}")
    return rule


def decide(
    config: PatchingConfig,
    ids: Tensor,
    entropies: Tensor | None = None,
    *,
    lookup: Tensor | None = None,
    bpe: Callable[[bytes], Sequence[int]] | None = None,
) -> Tensor:
    """Boundaries of one document, with the decision for the position after its last byte.

    Args:
        ids: [T] the document, BOS first.
        entropies: [T] nats; needed by the entropy rules.
        lookup: table [260 ** n] bool, for the rule ``lookup``.
        bpe: function from bytes to token start offsets, for the rule ``bpe``.

    Returns:
        [T + 1] bool: ``[:T]`` are ``starts``; ``[T]`` tells whether position T would start a patch.

    Raises:
        ValueError: the rule lacks its entropies, table or tokenizer.
    """
    return decide_by(rule_of(config, lookup, bpe), ids, entropies)


def decide_by(rule: Rule, ids: Tensor, entropies: Tensor | None) -> Tensor:
    """As :func:`decide`, by a rule that has what it needs."""
    if entropies is None:
        if rule.config.needs_entropies:
            raise ValueError(f"patching rule {rule.name!r} needs an entropy model")
        if rule.config.is_learned:
            raise ValueError(f"patching rule {rule.name!r} needs the model that learned it")
        entropies = ids.new_empty(0, dtype=torch.float32)
    holds = rule.holds(ids, entropies)  # [T]
    decisions = torch.cat((holds.new_ones(1), holds))
    decisions[: min(2, len(decisions))] = True  # positions 0 and 1 start a patch in every document
    if rule.config.max_patch_length is not None:
        decisions = split_long(decisions, rule.config.max_patch_length)
    return decisions


def split_long(decisions: Tensor, max_patch_length: int) -> Tensor:
    """Also start a patch after every ``max_patch_length`` bytes of one  # [T + 1] bool."""
    position = torch.arange(len(decisions), dtype=torch.int64, device=decisions.device)
    opened = torch.where(decisions, position, 0).cummax(0).values
    return decisions | ((position - opened) % max_patch_length == 0)
