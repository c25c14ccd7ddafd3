"""A rule one byte at a time, for a text that is still being written, or many at once."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from blt.errors import UserError
from blt.patching.rules import RULES, Place, Places, Rule
from blt.vocab import OFFSET

NEWLINE = ord("\n") + OFFSET


@dataclass(frozen=True)
class Boundaries:
    """Where the patches of one text lie, after ``position`` bytes of it.

    Attributes:
        position: ids read, so the index of the next one.
        opens: does the next id start a patch?
        context: where the entropy model's context starts; moves with ``newline_reset``.
        rule_start: the last patch start that a rule set (``max_patch_length`` counts from it).
        entropy: nats, of the prediction of the next byte; 0 where no rule needs it.
        recent: the last ids, as many as the rule looks at.
    """

    rule: Rule
    position: int = 0
    opens: bool = True
    context: int = 0
    rule_start: int = 0
    entropy: float = 0.0
    recent: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if not self.rule.incremental:
            incremental = [rule.name for rule in RULES.values() if rule.incremental]
            raise UserError(
                f"patching rule {self.rule.name!r} cannot cut a text that is still being written;"
                f" it must be one of {', '.join(incremental)}"
            )

    def read(self, token_id: int, entropy: float = 0.0) -> Boundaries:
        """After one more id, with the entropy of the prediction of the one after it."""
        config, at = self.rule.config, self.position
        recent = (*self.recent, token_id)[-self.rule.reach :]
        holds = at == 0 or self.rule.holds_at(Place(at, recent, entropy, self.entropy))
        longest = config.max_patch_length
        opens = holds or (longest is not None and (at + 1 - self.rule_start) % longest == 0)
        newline = config.newline_reset and token_id == NEWLINE
        return Boundaries(
            self.rule,
            at + 1,
            opens,
            at + 1 if newline else self.context,
            at + 1 if holds else self.rule_start,
            entropy,
            recent,
        )


def running_max(first: Tensor, values: Tensor) -> Tensor:
    """The largest of ``first`` [B] and of each text's ``values`` [B, n] up to each  # [B, n]."""
    if values.shape[1] == 1:
        return torch.maximum(first[:, None], values)
    return torch.cat((first[:, None], values), 1).cummax(1).values[:, 1:]


def contexts_after(context: Tensor, ids: Tensor, positions: Tensor) -> Tensor:
    """Where the entropy model's context starts after each new id, with ``newline_reset``.

    Args:
        context: [B] where it starts before.
        ids: [B, n] new ids of B texts.
        positions: [B, n] of the ids.

    Returns:
        [B, n]
    """
    return running_max(context, torch.where(ids == NEWLINE, positions + 1, 0))


def opens_after(
    rule: Rule, recent: Tensor, positions: Tensor, entropies: Tensor, rule_start: Tensor
) -> tuple[Tensor, Tensor]:
    """What :class:`Boundaries` knows after each of n new ids of B texts, without the host.

    Args:
        rule: one that has a ``holds_each``.
        recent: [B, reach - 1 + n] the last ids before and the new ones; 0 before the document.
        positions: [B, n] of the new ids.
        entropies: [B, 1 + n] nats, of the id before and of the new ones.
        rule_start: [B] see :class:`Boundaries`, before the new ids.

    Returns:
        ``opens`` [B, n] bool and ``rule_start`` [B, n], after each.
    """
    recents = recent.unfold(1, rule.reach, 1)  # [B, n, reach]
    holds = rule.holds_each(Places(positions, recents, entropies[:, 1:], entropies[:, :-1]))
    holds = holds | (positions == 0)
    rule_starts = running_max(rule_start, torch.where(holds, positions + 1, 0))
    longest = rule.config.max_patch_length
    if longest is None:
        return holds, rule_starts
    return (positions + 1 - rule_starts) % longest == 0, rule_starts
