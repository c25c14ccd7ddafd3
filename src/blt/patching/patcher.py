"""A rule with everything that it needs, as one object: it decides, cuts, streams, calibrates."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from blt import vocab
from blt.errors import UserError, require_within
from blt.machine.hardware import reading_bytes
from blt.machine.precision import autocast, reading_dtype
from blt.patching.cut import Cut, Patches
from blt.patching.deciding import decide_by, rule_of
from blt.patching.rules import PatchingConfig, Rule, describe
from blt.patching.streaming import Boundaries
from blt.patching.tables import MAX_ORDER, lookup_entropies, write_lookup_table
from blt.patching.thresholds import check_target, threshold_for
from blt.patching.views import mean_patch_size, starts_to_ids, starts_to_lengths
from blt.texts.pieces import grouped, sample

SAMPLE_BYTES = 262144
OnShare = Callable[[float], None]  # 0..1 of a piece of work


class EntropyModel(Protocol):
    """What an entropy rule needs of a model: how unsure it is of each next byte."""

    @property
    def device(self) -> torch.device: ...

    def document_entropies(
        self, documents: Sequence[Tensor], newline_reset: bool = False
    ) -> Sequence[Tensor]:
        """Documents, ids [T] each → nats [T] each, of the prediction of the byte after each."""
        ...


class RoutingModel(Protocol):
    """A model that learned where patches start."""

    @property
    def device(self) -> torch.device: ...

    def boundary_probabilities(self, documents: Sequence[Tensor]) -> Sequence[Tensor]:
        """Documents, ids [T] each → how likely a patch starts after each id  # [T] each."""
        ...


@dataclass(frozen=True)
class Patcher:
    """A rule with what it needs.

    Attributes:
        config: the rule and its parameters.
        entropy_model: for the entropy rules.
        table: [260 ** n] bool, for the rule ``lookup``.
        token_offsets: from bytes to the offsets at which tokens start, for the rule ``bpe``.
        router: the model whose rule is ``learned``; its probabilities stand where others have
            entropies.
    """

    config: PatchingConfig
    entropy_model: EntropyModel | None = None
    table: Tensor | None = None
    token_offsets: Callable[[bytes], Sequence[int]] | None = None
    router: RoutingModel | None = None

    @cached_property
    def rule(self) -> Rule:
        return rule_of(self.config, self.table, self.token_offsets)

    @property
    def device(self) -> torch.device:
        """Where documents have to be."""
        model = self.router or self.entropy_model
        if model is not None:
            return model.device
        return torch.device("cpu") if self.table is None else self.table.device

    def entropies(self, documents: Sequence[Tensor]) -> list[Tensor | None]:
        """Nats [T] of each document, ids [T]; None where the rule needs none.

        Of the rule ``learned``: probabilities that a patch starts after each id.

        Raises:
            UserError: there is no entropy model, and the rule needs one.
        """
        if self.config.is_learned:
            if self.router is None:
                raise UserError(
                    f"patching rule {self.config.rule!r} needs the model that learned it"
                )
            return list(self.router.boundary_probabilities(documents))
        if not self.config.needs_entropies:
            return [None] * len(documents)
        if self.entropy_model is None:
            raise UserError(f"patching rule {self.config.rule!r} needs an entropy model")
        return list(self.entropy_model.document_entropies(documents, self.config.newline_reset))

    def decide(
        self, documents: Sequence[Tensor], entropies: Sequence[Tensor | None] | None = None
    ) -> tuple[list[Tensor], list[Tensor | None]]:
        """Boundaries [T + 1] bool and entropies [T] (or None) of each document.

        Args:
            documents: ids [T] each, BOS first.
            entropies: nats [T] of each, where they are known; None: the entropy model is asked.
        """
        if entropies is None or not self.config.needs_entropies:  # a router's are never known
            entropies = self.entropies(documents)
        missing = [number for number, known in enumerate(entropies) if known is None]
        if missing and self.config.needs_entropies:
            asked = self.entropies([documents[number] for number in missing])
            found = dict(zip(missing, asked, strict=True))
            entropies = [found.get(number, known) for number, known in enumerate(entropies)]
        pairs = list(zip(documents, entropies, strict=True))
        return [decide_by(self.rule, ids, known) for ids, known in pairs], [h for _, h in pairs]

    def patch(self, ids: Tensor) -> Patches:
        """Cut one document, ids [T], BOS first.

        Raises:
            ValueError: ids of another type or shape, or out of range.
        """
        if len(vocab.check_ids(ids)) == 0:
            none = torch.empty(0, dtype=torch.int64, device=ids.device)
            return Patches(none.bool(), none, none, None, opens_next=True, read=none)
        (decisions,), (found,) = self.decide([ids])
        starts, learned = decisions[:-1], self.config.is_learned
        return Patches(
            starts=starts,
            lengths=starts_to_lengths(starts),
            ids=starts_to_ids(starts),
            entropies=None if learned else found,
            opens_next=bool(decisions[-1]),
            probabilities=found if learned else None,
            read=ids,
        )

    def cut(self, data: bytes) -> Cut:
        """Cut one text."""
        found = self.patch(vocab.encode(data).to(self.device))
        # Position 1 always starts a patch, so the first one is BOS alone.
        entropies, probabilities = (
            None if values is None else values[: len(data)].tolist()
            for values in (found.entropies, found.probabilities)
        )
        lengths = found.lengths[1:].tolist()
        return Cut(data, self.config, lengths, entropies, found.opens_next, probabilities)

    def stream(self) -> Boundaries:
        """The boundaries of a text of which nothing is known yet.

        Raises:
            UserError: the rule must see the whole text.
        """
        return Boundaries(self.rule)

    def describe(self) -> str:
        """The rule and the parameters that it uses, in one line."""
        return describe(self.config)

    def observed(
        self,
        documents: Sequence[bytes],
        *,
        context_bytes: int = 2048,
        sample_bytes: int | None = SAMPLE_BYTES,
        dtype: torch.dtype | None = None,
        on_progress: OnShare | None = None,
    ) -> Iterator[tuple[Tensor, Tensor | None]]:
        """Ids [T] and entropies [T] (or None) of pieces of documents, on the CPU.

        Args:
            documents: text to sample from.
            context_bytes: documents are cut into pieces of at most so many bytes.
            sample_bytes: how much text to look at; None: all of it.
            dtype: of matrix products; None: bfloat16 on a GPU that has it, else float32.
            on_progress: called with the share of it that has been looked at.
        """
        dtype = dtype or reading_dtype(self.device)
        pieces = sample(documents, context_bytes, sample_bytes)
        done, total = 0, sum(map(len, pieces))
        for group in grouped(pieces, reading_bytes(self.device)):
            ids = [vocab.encode(piece).to(self.device) for piece in group]
            with autocast(self.device, dtype):
                entropies = self.entropies(ids)
            for one, known in zip(ids, entropies, strict=True):
                yield one.cpu(), None if known is None else known.cpu()
            done += sum(map(len, group))
            if on_progress is not None:
                on_progress(done / max(1, total))

    def calibrated(self, documents: Sequence[bytes], target: float, **how: Any) -> Patcher:
        """With θ set so that patches of ``documents`` have ``target`` bytes on average.

        Args:
            documents: text to sample from: training text, never held-out text.
            target: bytes per patch.
            how: as for :meth:`observed`.

        Raises:
            UserError: no entropy rule, no text, or a target below 1.
        """
        check_target(self.config, target)
        found = [(ids, h) for ids, h in self.observed(documents, **how) if h is not None]
        return replace(self, config=threshold_for(found, target, self.config))

    def mean_patch_size(self, documents: Sequence[bytes], **how: Any) -> float:
        """Bytes per patch of documents, or of a sample of them; 0.0 for none.

        ``how`` is as for :meth:`observed`.
        """
        positions = patches = pieces = 0
        for ids, entropies in self.observed(documents, **how):
            positions, pieces = positions + len(ids), pieces + 1
            patches += int(decide_by(self.rule, ids, entropies)[:-1].sum())
        return mean_patch_size(positions, patches, pieces)

    def write_table(self, data: bytes, path: Path, order: int) -> str:
        """Write a table for the ``lookup`` rule, observed on ``data``; returns a line about it."""
        ids = vocab.encode(data).to(self.device)
        (entropies,) = self.entropies([ids])
        if entropies is None or self.config.is_learned:
            raise UserError(f"rule {self.config.rule!r} has no entropies, and no threshold")
        require_within("--order", order, 1, MAX_ORDER)
        table = lookup_entropies([(ids, entropies)], order) > self.config.threshold
        return write_lookup_table(path, table, len(data))
