"""A rule one byte at a time, for a text that is still being written."""

from __future__ import annotations

from dataclasses import dataclass

from blt.errors import UserError
from blt.patching.rules import RULES, Place, Rule
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
