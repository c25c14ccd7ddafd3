"""Patching: from ids (and entropies) to boundaries, as pure functions on tensors (paper §2).

A document's boundaries are three views of one thing: ``starts`` [T] bool, patch ``lengths`` [P],
patch ``ids`` [T]. Every rule here but ``bpe`` is incremental: it decides whether position t+1
starts a patch from ids and entropies at positions <= t, so ``decide`` returns one decision more
than a view of T positions needs: whether a patch would open right after the last byte.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from blt.errors import require, require_within
from blt.vocab import OFFSET, VOCAB_SIZE

Rule = Literal[
    "entropy", "entropy-monotonic", "entropy-combined", "space", "static", "byte", "bpe", "lookup"
]
ENTROPY_RULES: tuple[Rule, ...] = ("entropy", "entropy-monotonic", "entropy-combined")
MAX_ORDER = 3  # of a lookup table: 260 ** 4 entries would take 4.6 GB
RANGES: dict[str, tuple[float, float]] = {
    "threshold": (-1e3, 1e3),  # entropies lie in 0..5.6 nats, their rises in -5.6..5.6
    "threshold_add": (-1e3, 1e3),
    "stride": (1, 2**30),
    "lookup_order": (1, MAX_ORDER),
    "max_patch_length": (1, 2**30),
}


# Options of some rules alone.
OWNERS: dict[str, tuple[Rule, ...]] = {
    "threshold": ENTROPY_RULES,
    "threshold_add": ("entropy-combined",),
    "stride": ("static",),
    "newline_reset": ENTROPY_RULES,
}


def refuse_unused(rule: Rule, given: Collection[str]) -> None:
    """Refuse options that a rule does nothing with.

    Raises:
        UserError: names the option, and the rules that it is for.
    """
    for name in given:
        rules = OWNERS.get(name, (rule,))
        require(
            rule in rules, f"{name}: does nothing for rule {rule!r}, only for {', '.join(rules)}"
        )


@dataclass(frozen=True)
class PatchingConfig:
    """Which rule cuts bytes into patches. Entropies and thresholds are in nats."""

    rule: Rule = "entropy"
    threshold: float = 1.335442066192627  # θ; for "entropy-monotonic" the threshold of the rise
    threshold_add: float = 0.0  # θ_add of "entropy-combined": threshold of the rise
    stride: int = 4  # bytes per patch of "static"
    lookup_order: int = 2  # how many of the last bytes the table of "lookup" looks at
    max_patch_length: int | None = None  # longer patches are split into runs of this length
    newline_reset: bool = False  # entropy model's context restarts after each newline (paper §4.4)

    def __post_init__(self) -> None:
        for name, (least, most) in RANGES.items():
            if (value := getattr(self, name)) is not None:
                require_within(f"patching.{name}", value, least, most)

    @property
    def needs_entropies(self) -> bool:
        return self.rule in ENTROPY_RULES


# --- views -------------------------------------------------------------------------------------


def starts_to_lengths(starts: Tensor) -> Tensor:
    """``starts`` [T] bool (starts[0] is True) → patch lengths [P]."""
    first = starts.nonzero().flatten()
    end = first.new_tensor([len(starts)])
    return torch.diff(first, append=end)


def starts_to_ids(starts: Tensor) -> Tensor:
    """``starts`` [T] bool → patch id of every position [T], from 0."""
    return starts.cumsum(0) - 1


def lengths_to_starts(lengths: Tensor) -> Tensor:
    """Patch ``lengths`` [P], all positive → starts [T] bool."""
    starts = torch.zeros(int(lengths.sum()), dtype=torch.bool, device=lengths.device)
    starts[lengths.cumsum(0) - lengths] = True
    return starts


def ids_to_starts(ids: Tensor) -> Tensor:
    """Patch ``ids`` [T] → starts [T] bool."""
    return torch.diff(ids, prepend=ids.new_tensor([-1])) != 0


# --- rules: position t+1 starts a patch iff the rule holds at t ----------------------------------


def entropy_rule(entropies: Tensor, config: PatchingConfig) -> Tensor:
    """Global threshold, approximate monotonicity, or both (paper §2.3)  # [T] bool."""
    above = entropies > config.threshold
    if config.rule == "entropy":
        return above
    # Position 0 has no predecessor; what follows it starts a patch anyway.
    rise = torch.diff(entropies, prepend=entropies[:1])
    if config.rule == "entropy-monotonic":
        return rise > config.threshold
    return above & (rise > config.threshold_add)


def is_space_like(ids: Tensor) -> Tensor:
    """Not a Latin letter, a digit or a UTF-8 continuation byte; special ids are space-like."""
    byte = ids - OFFSET
    letter = ((byte >= 0x41) & (byte <= 0x5A)) | ((byte >= 0x61) & (byte <= 0x7A))
    digit = (byte >= 0x30) & (byte <= 0x39)
    continuation = (byte >= 0x80) & (byte <= 0xBF)
    return ~(letter | digit | continuation)


def space_rule(ids: Tensor) -> Tensor:
    """A space-like byte whose predecessor is not space-like ends a patch (paper §2.2) [T] bool."""
    space = is_space_like(ids)
    before = torch.cat((space.new_ones(min(1, len(ids))), space[:-1]))
    return space & ~before


def static_rule(length: int, stride: int, device: torch.device) -> Tensor:
    """Every ``stride`` bytes after BOS (MegaByte)  # [T] bool."""
    return torch.arange(length, dtype=torch.int64, device=device) % stride == 0


def lookup_rule(ids: Tensor, table: Tensor, order: int) -> Tensor:
    """``table`` [260**order] bool, indexed by the last ``order`` ids, oldest first  # [T] bool."""
    return table[lookup_key(ids, order)]


def lookup_key(ids: Tensor, order: int) -> Tensor:
    """The last ``order`` ids read as a number in base 260  # [T] int64.

    Ids before the document count as 0.
    """
    key = torch.zeros_like(ids)
    for back in range(order - 1, -1, -1):
        shifted = torch.cat((ids.new_zeros(min(back, len(ids))), ids[: len(ids) - back]))
        key = key * VOCAB_SIZE + shifted[: len(ids)]
    return key


def lookup_entropies(documents: Sequence[tuple[Tensor, Tensor]], order: int) -> Tensor:
    """Mean entropy after each n-gram, in nats  # [260**order] float32.

    An n-gram that does not occur has the mean of its last n-1 bytes; a byte that does not, 0.

    Args:
        documents: pairs of ids [T] and entropies [T] (nats).
        order: n, in bytes.
    """
    mean = torch.zeros(1, dtype=torch.float32, device="cpu")
    for n in range(1, order + 1):
        total, count = (
            torch.zeros(VOCAB_SIZE**n, dtype=torch.float32, device="cpu") for _ in range(2)
        )
        for ids, entropies in documents:
            key = lookup_key(ids, n)
            total.index_add_(0, key, entropies.float())
            count.index_add_(0, key, torch.ones_like(entropies, dtype=torch.float32))
        mean = torch.where(count > 0, total / count.clamp_min(1), mean.repeat(VOCAB_SIZE))
    return mean


def bpe_rule(data: bytes, spans: Callable[[bytes], Sequence[int]]) -> Tensor:
    """Boundaries of a BPE tokenizer, which sees the whole text: not incremental.

    ``spans`` returns the byte offsets at which tokens start. [len(data) + 1] decisions: BOS first.
    """
    decisions = torch.zeros(len(data) + 1, dtype=torch.bool, device="cpu")
    offsets = [offset for offset in spans(data) if 0 <= offset < len(data)]
    decisions[torch.tensor(offsets, dtype=torch.int64, device="cpu")] = True
    return decisions


def decide(
    config: PatchingConfig,
    ids: Tensor,
    entropies: Tensor | None = None,
    *,
    lookup: tuple[Tensor, int] | None = None,
    bpe: Callable[[bytes], Sequence[int]] | None = None,
) -> Tensor:
    """Boundaries of one document, with the decision for the position after its last byte.

    Args:
        ids: [T] the document, BOS first.
        entropies: [T] nats; needed by the entropy rules.
        lookup: table and order for the ``lookup`` rule.
        bpe: function from bytes to token start offsets for the ``bpe`` rule.

    Returns:
        [T + 1] bool: ``[:T]`` are ``starts``; ``[T]`` tells whether position T would start a patch.

    Raises:
        ValueError: the rule lacks its entropies, table or tokenizer.
    """
    holds = _holds(config, ids, entropies, lookup, bpe)  # [T]
    decisions = torch.cat((holds.new_ones(1), holds))
    decisions[: min(2, len(decisions))] = True  # positions 0 and 1 start a patch in every document
    if config.max_patch_length is not None:
        decisions = split_long(decisions, config.max_patch_length)
    return decisions


def _holds(
    config: PatchingConfig,
    ids: Tensor,
    entropies: Tensor | None,
    lookup: tuple[Tensor, int] | None,
    bpe: Callable[[bytes], Sequence[int]] | None,
) -> Tensor:
    match config.rule:
        case "entropy" | "entropy-monotonic" | "entropy-combined":
            if entropies is None:
                raise ValueError(f"patching rule {config.rule!r} needs an entropy model")
            return entropy_rule(entropies, config)
        case "space":
            return space_rule(ids)
        case "static":
            return static_rule(len(ids), config.stride, ids.device)
        case "byte":
            return torch.ones_like(ids, dtype=torch.bool)
        case "lookup":
            if lookup is None:
                raise ValueError("patching rule 'lookup' needs a table")
            return lookup_rule(ids, *lookup)
        case "bpe":
            if bpe is None:
                raise ValueError("patching rule 'bpe' needs a tokenizer")
            data = bytes((ids[1:] - OFFSET).clamp(0, 255).to(torch.uint8).tolist())
            return bpe_rule(data, bpe).to(ids.device)
    raise ValueError(f"unknown patching rule {config.rule!r}; choose one of {', '.join(_rules())}")


def _rules() -> tuple[str, ...]:
    return Rule.__args__  # type: ignore[attr-defined]


def split_long(decisions: Tensor, max_patch_length: int) -> Tensor:
    """Also start a patch after every ``max_patch_length`` bytes of one  # [T + 1] bool."""
    position = torch.arange(len(decisions), dtype=torch.int64, device=decisions.device)
    opened = torch.where(decisions, position, 0).cummax(0).values
    return decisions | ((position - opened) % max_patch_length == 0)


# --- calibration ---------------------------------------------------------------------------------


def mean_patch_size(starts: Tensor) -> float:
    """Bytes per patch over [T] decisions."""
    return len(starts) / max(1, int(starts.sum()))


def calibrate(
    documents: Sequence[tuple[Tensor, Tensor]], target: float, config: PatchingConfig
) -> PatchingConfig:
    """Set θ so that the mean patch size over ``documents`` is the nearest possible to ``target``.

    The mean patch size grows with θ, so bisection over the observed entropies finds it.

    Args:
        documents: pairs of ids [T] and entropies [T] (nats).
        target: bytes per patch.

    Raises:
        ValueError: not an entropy rule, no bytes, or a target below 1.
    """
    if not config.needs_entropies:
        raise ValueError(f"only entropy rules have a threshold to calibrate, not {config.rule!r}")
    if target < 1:
        raise ValueError(f"target patch size must be at least 1 byte, got {target}")
    if sum(len(ids) for ids, _ in documents) == 0:
        raise ValueError("no bytes to calibrate the patching threshold on")

    def measured(threshold: float) -> float:
        trial = _with_threshold(config, threshold)
        starts = [decide(trial, ids, entropies)[:-1] for ids, entropies in documents if len(ids)]
        return mean_patch_size(torch.cat(starts))

    low, high = -20.0, 20.0  # entropies over 260 ids lie in 0..5.6 nats, their rises in -5.6..5.6
    for _ in range(50):
        middle = (low + high) / 2
        low, high = (middle, high) if measured(middle) < target else (low, middle)
    best = min((low, high), key=lambda threshold: abs(measured(threshold) - target))
    return _with_threshold(config, best)


def _with_threshold(config: PatchingConfig, threshold: float) -> PatchingConfig:
    from dataclasses import replace

    return replace(config, threshold=threshold)
