"""The rules of :mod:`blt.patching` one byte at a time, for a text that is still being written."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from blt.errors import UserError
from blt.patching import PatchingConfig, is_space_like
from blt.vocab import OFFSET, VOCAB_SIZE

NEWLINE = ord("\n") + OFFSET
SPACE_LIKE: tuple[bool, ...] = tuple(
    is_space_like(torch.arange(VOCAB_SIZE, dtype=torch.int64, device="cpu")).tolist()
)
INCREMENTAL = (
    *("entropy", "entropy-monotonic", "entropy-combined"),
    *("space", "static", "byte", "lookup"),
)


@dataclass(frozen=True)
class Boundaries:
    """Where the patches of one text lie, after ``position`` bytes of it.

    Attributes:
        position: ids read, so the index of the next one.
        opens: does the next id start a patch?
        context: where the entropy model's context starts; moves with ``newline_reset``.
        rule_start: the last patch start that a rule set (``max_patch_length`` counts from it).
        entropy: nats, of the prediction of the next byte; 0 where no rule needs it.
        space: was the last id space-like?
        key: the last ids read as a number, where ``table`` is looked at.
    """

    config: PatchingConfig
    table: Tensor | None = None  # [260 ** order] bool of the rule "lookup"
    position: int = 0
    opens: bool = True
    context: int = 0
    rule_start: int = 0
    entropy: float = 0.0
    space: bool = True
    key: int = 0

    def __post_init__(self) -> None:
        if self.config.rule not in INCREMENTAL:
            raise UserError(
                f"patching rule {self.config.rule!r} cannot cut a text that is still being written;"
                f" it must be one of {', '.join(INCREMENTAL)}"
            )

    def read(self, token_id: int, entropy: float = 0.0) -> Boundaries:
        """After one more id, with the entropy of the prediction of the one after it."""
        space = SPACE_LIKE[token_id]
        key = 0
        if self.table is not None:
            key = (self.key * VOCAB_SIZE + token_id) % len(self.table)
        holds = self.position == 0 or self._holds(entropy, space, key)
        rule_start = self.position + 1 if holds else self.rule_start
        longest = self.config.max_patch_length
        opens = holds or (
            longest is not None and (self.position + 1 - self.rule_start) % longest == 0
        )
        newline = self.config.newline_reset and token_id == NEWLINE
        return Boundaries(
            self.config,
            self.table,
            self.position + 1,
            opens,
            self.position + 1 if newline else self.context,
            rule_start,
            entropy,
            space,
            key,
        )

    def _holds(self, entropy: float, space: bool, key: int) -> bool:
        """Does the rule hold at this position, so that the next one starts a patch?"""
        match self.config.rule:
            case "entropy":
                return entropy > self.config.threshold
            case "entropy-monotonic":
                return entropy - self.entropy > self.config.threshold
            case "entropy-combined":
                rise = entropy - self.entropy
                return entropy > self.config.threshold and rise > self.config.threshold_add
            case "space":
                return space and not self.space
            case "static":
                return self.position % self.config.stride == 0
            case "lookup":
                return self.table is not None and bool(self.table[key])
            case _:  # "byte"
                return True
