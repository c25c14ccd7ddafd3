"""Where patches start (paper §2): one class a rule; a new rule is one more class in this file.

A rule holds at position t if position t+1 starts a patch. Every rule but ``bpe`` is incremental: it
knows that from ids and entropies at positions <= t.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor

from blt.errors import nearest, require, require_within
from blt.patching.tables import MAX_ORDER, lookup_key, order_of
from blt.vocab import OFFSET, VOCAB_SIZE

CPU = torch.device("cpu")
RULES: dict[str, type[Rule]] = {}  # by name, in the order of this file
RANGES: dict[str, tuple[float, float]] = {
    "threshold": (-1e3, 1e3),  # entropies lie in 0..5.6 nats, their rises in -5.6..5.6
    "threshold_add": (-1e3, 1e3),
    "stride": (1, 2**30),
    "lookup_order": (1, MAX_ORDER),
    "max_patch_length": (1, 2**30),
}


@dataclass(frozen=True)
class PatchingConfig:
    """Which rule cuts bytes into patches. Entropies and thresholds are in nats."""

    rule: str = "entropy"
    threshold: float = 1.335442066192627  # θ; for "entropy-monotonic" the threshold of the rise
    threshold_add: float = 0.0  # θ_add of "entropy-combined": threshold of the rise
    stride: int = 4  # bytes per patch of "static"
    lookup_order: int = 2  # how many of the last bytes the table of "lookup" looks at
    fair_scripts: bool = False  # its table is learned so that all scripts are cut as finely
    max_patch_length: int | None = None  # longer patches are split into runs of this length
    newline_reset: bool = False  # entropy model's context restarts after each newline (paper §4.4)

    def __post_init__(self) -> None:
        known = self.rule in RULES
        require(known, f"unknown patching rule {self.rule!r}; {nearest(self.rule, [*RULES])}")
        for name, (least, most) in RANGES.items():
            if (value := getattr(self, name)) is not None:
                require_within(f"patching.{name}", value, least, most)
        require(
            not (self.fair_scripts and self.rule == "lookup") or self.lookup_order > 1,
            "patching.fair_scripts: a table of 1 byte knows no scripts; give lookup_order 2 or 3",
        )

    @property
    def needs_entropies(self) -> bool:
        return RULES[self.rule].needs == "entropy model"

    @property
    def is_learned(self) -> bool:
        """Does the model itself say where patches start?"""
        return RULES[self.rule].needs == "router"


class Place(NamedTuple):
    """What is known at a position of a text that is still being written."""

    position: int
    recent: Sequence[int]  # the last ids, the position's own the last of them
    entropy: float  # nats, of the prediction of the next byte; of "learned" its probability
    entropy_before: float  # of the prediction of this one


class Places(NamedTuple):
    """What is known at positions of many texts that are still being written, any shape [..]."""

    position: Tensor  # [..] int64
    recent: Tensor  # [.., reach] int64 the last ids, as for a Place; 0 before the document
    entropy: Tensor  # [..] nats
    entropy_before: Tensor  # [..]


class Rule:
    """When does a patch end?

    Attributes:
        name: what users call it.
        about: what starts a patch, in a sentence.
        options: fields of :class:`PatchingConfig` that it reads.
        needs: what it needs besides the bytes: "entropy model", "table", "tokenizer", "router" (of
            a model that learned to cut) or nothing.
        incremental: does it hold at t whatever comes after t?
        reach: how many of the last ids it looks at.
    """

    name: ClassVar[str]
    about: ClassVar[str]
    options: ClassVar[tuple[str, ...]] = ()
    needs: ClassVar[str | None] = None
    incremental: ClassVar[bool] = True
    reach = 1

    def __init__(
        self,
        config: PatchingConfig,
        table: Tensor | None = None,
        token_offsets: Callable[[bytes], Sequence[int]] | None = None,
    ) -> None:
        self.config, self.table, self.token_offsets = config, table, token_offsets

    def __init_subclass__(cls) -> None:
        RULES[cls.name] = cls

    def holds(self, ids: Tensor, entropies: Tensor) -> Tensor:
        """At which positions of a document, ids [T] and entropies [T] in nats?  # [T] bool."""
        raise NotImplementedError

    def holds_at(self, at: Place) -> bool:
        """Does it hold at a position > 0 of a text that is still being written?"""
        raise NotImplementedError

    def holds_each(self, at: Places) -> Tensor:
        """As :meth:`holds_at`, at each of many places, without the host  # [..] bool.

        May be left out: texts are then written with the host's help, on a GPU more slowly.
        """
        raise NotImplementedError

    @classmethod
    def holds_on_device(cls) -> bool:
        """Does it have a :meth:`holds_each`?"""
        return cls.holds_each is not Rule.holds_each

    def describe(self) -> str:
        """The parameters, in words."""
        return ""


class Entropy(Rule):
    """The next byte is hard to predict: the global threshold (paper §2.3)."""

    name = "entropy"
    about = "A byte that the entropy model is unsure of: more than θ."
    options: ClassVar[tuple[str, ...]] = ("threshold", "newline_reset")
    needs = "entropy model"

    def holds(self, ids: Tensor, entropies: Tensor) -> Tensor:
        return entropies > self.config.threshold

    def holds_at(self, at: Place) -> bool:
        return at.entropy > self.config.threshold

    def holds_each(self, at: Places) -> Tensor:
        return at.entropy > self.config.threshold

    def describe(self) -> str:
        return f"θ = {self.config.threshold:.4f} nats"


def rises(entropies: Tensor) -> Tensor:
    """How far each entropy is above the one before it; 0 at first, where it does not matter."""
    return torch.diff(entropies, prepend=entropies[:1])


class EntropyMonotonic(Entropy):
    """The next byte is harder to predict than this one was: approximate monotonicity (§2.3)."""

    name = "entropy-monotonic"
    about = "A byte at which it becomes less sure: its entropy rises by more than θ."

    def holds(self, ids: Tensor, entropies: Tensor) -> Tensor:
        return rises(entropies) > self.config.threshold

    def holds_at(self, at: Place) -> bool:
        return at.entropy - at.entropy_before > self.config.threshold

    def holds_each(self, at: Places) -> Tensor:
        return at.entropy - at.entropy_before > self.config.threshold

    def describe(self) -> str:
        return f"a rise above θ = {self.config.threshold:.4f} nats"


class EntropyCombined(Entropy):
    """Both: hard to predict, and harder than this byte was."""

    name = "entropy-combined"
    about = "Both: more than θ, and a rise of more than θ_add."
    options = ("threshold", "threshold_add", "newline_reset")

    def holds(self, ids: Tensor, entropies: Tensor) -> Tensor:
        above = entropies > self.config.threshold
        return above & (rises(entropies) > self.config.threshold_add)

    def holds_at(self, at: Place) -> bool:
        rise = at.entropy - at.entropy_before
        return at.entropy > self.config.threshold and rise > self.config.threshold_add

    def holds_each(self, at: Places) -> Tensor:
        rise = at.entropy - at.entropy_before
        return (at.entropy > self.config.threshold) & (rise > self.config.threshold_add)

    def describe(self) -> str:
        config = self.config
        return f"θ = {config.threshold:.4f} nats and a rise above {config.threshold_add:.4f} nats"


def is_space_like(ids: Tensor) -> Tensor:
    """Not a Latin letter, a digit or a UTF-8 continuation byte; special ids are space-like."""
    byte = ids - OFFSET
    letter = ((byte >= 0x41) & (byte <= 0x5A)) | ((byte >= 0x61) & (byte <= 0x7A))
    digit = (byte >= 0x30) & (byte <= 0x39)
    continuation = (byte >= 0x80) & (byte <= 0xBF)
    return ~(letter | digit | continuation)


SPACE_LIKE: tuple[bool, ...] = tuple(
    is_space_like(torch.arange(VOCAB_SIZE, dtype=torch.int64, device="cpu")).tolist()
)


class Space(Rule):
    """This byte is space-like, and the one before it is not (paper §2.2)."""

    name = "space"
    about = "What follows a space or a mark: about one patch per word."
    reach = 2

    def holds(self, ids: Tensor, entropies: Tensor) -> Tensor:
        space = is_space_like(ids)
        before = torch.cat((space.new_ones(min(1, len(ids))), space[:-1]))
        return space & ~before

    def holds_at(self, at: Place) -> bool:
        return SPACE_LIKE[at.recent[-1]] and not SPACE_LIKE[at.recent[-2]]

    def holds_each(self, at: Places) -> Tensor:
        before, this = is_space_like(at.recent).unbind(-1)
        return this & ~before


class Static(Rule):
    """Every ``stride`` bytes after BOS (MegaByte)."""

    name = "static"
    about = "Every so many bytes, whatever they are."
    options = ("stride",)

    def holds(self, ids: Tensor, entropies: Tensor) -> Tensor:
        positions = torch.arange(len(ids), dtype=torch.int64, device=ids.device)
        return positions % self.config.stride == 0

    def holds_at(self, at: Place) -> bool:
        return at.position % self.config.stride == 0

    def holds_each(self, at: Places) -> Tensor:
        return at.position % self.config.stride == 0

    def describe(self) -> str:
        return f"every {self.config.stride} bytes"


class Byte(Rule):
    """After every byte."""

    name = "byte"
    about = "Every byte: no patches at all, and the most work."

    def holds(self, ids: Tensor, entropies: Tensor) -> Tensor:
        return torch.ones_like(ids, dtype=torch.bool)

    def holds_at(self, at: Place) -> bool:
        return True

    def holds_each(self, at: Places) -> Tensor:
        return torch.ones_like(at.position, dtype=torch.bool)


class Bpe(Rule):
    """A BPE tokenizer starts a token there; it sees the whole text, so this is not incremental."""

    name = "bpe"
    about = "What a BPE tokenizer makes a token of."
    needs = "tokenizer"
    incremental = False

    def holds(self, ids: Tensor, entropies: Tensor) -> Tensor:
        assert self.token_offsets is not None
        data = bytes((ids[1:] - OFFSET).clamp(0, 255).to(torch.uint8).tolist())
        holds = torch.zeros(len(ids), dtype=torch.bool, device="cpu")
        offsets = [offset for offset in self.token_offsets(data) if 0 <= offset < len(data)]
        holds[torch.tensor(offsets, dtype=torch.int64, device="cpu")] = True
        return holds.to(ids.device)


class Lookup(Rule):
    """A table says so for the last ``lookup_order`` bytes (paper §4.2)."""

    name = "lookup"
    about = "What a table says of the last bytes."
    options = ("lookup_order",)
    needs = "table"

    def __init__(
        self,
        config: PatchingConfig,
        table: Tensor | None = None,
        token_offsets: Callable[[bytes], Sequence[int]] | None = None,
    ) -> None:
        super().__init__(config, table, token_offsets)
        self.reach = config.lookup_order if table is None else order_of(table)
        self._copies: dict[torch.device, Tensor] = {}

    def holds(self, ids: Tensor, entropies: Tensor) -> Tensor:
        return self._table_on(ids.device)[lookup_key(ids, self.reach)]

    def _table_on(self, device: torch.device) -> Tensor:
        """The table, copied once to where documents are cut."""
        assert self.table is not None
        if device not in self._copies:
            self._copies[device] = self.table.to(device)
        return self._copies[device]

    def holds_at(self, at: Place) -> bool:
        key = 0  # ids before the document count as 0
        for token_id in at.recent:
            key = key * VOCAB_SIZE + token_id
        return bool(self._table_on(CPU)[key])  # the host would wait for a device at every byte

    def holds_each(self, at: Places) -> Tensor:
        assert self.table is not None
        key = torch.zeros_like(at.position)
        for token_id in at.recent.unbind(-1):
            key = key * VOCAB_SIZE + token_id
        return self.table[key]


class Learned(Rule):
    """The model's router says so: it learned where to cut (arXiv 2507.07955).

    What other rules read as entropies are the router's probabilities.
    """

    name = "learned"
    about = "Where the model has learned to start one."
    needs = "router"

    def holds(self, ids: Tensor, entropies: Tensor) -> Tensor:
        return entropies >= 0.5

    def holds_at(self, at: Place) -> bool:
        return at.entropy >= 0.5

    def holds_each(self, at: Places) -> Tensor:
        return at.entropy >= 0.5


def refuse_unused(rule: str, given: Collection[str]) -> None:
    """Refuse options that a rule does nothing with.

    Raises:
        UserError: names the option, and the rules that it is for.
    """
    for name in given:
        rules = [known.name for known in RULES.values() if name in known.options]
        require(
            not rules or rule in rules,
            f"{name}: does nothing for rule {rule!r}, only for {', '.join(rules)}",
        )


def used(config: PatchingConfig) -> dict[str, Any]:
    """The rule and the parameters that it uses, by name; those that are None are left out."""
    names = ("rule", *RULES[config.rule].options, "max_patch_length")
    values = {name: getattr(config, name) for name in names}
    return {name: value for name, value in values.items() if value is not None}


def describe(config: PatchingConfig) -> str:
    """A rule and the parameters that it uses, in one line."""
    parts = [config.rule, RULES[config.rule](config).describe()]
    if config.needs_entropies and config.newline_reset:
        parts.append("context reset after newlines")
    if config.max_patch_length is not None:
        parts.append(f"at most {config.max_patch_length} bytes per patch")
    return ", ".join(part for part in parts if part)
