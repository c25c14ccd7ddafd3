"""What a model says about a text that is there already: boundaries, surprise, scores."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from blt import vocab
from blt.checkpoint.pretrained import load_shipped
from blt.errors import UserError
from blt.generate.request import Piece
from blt.generate.sampling import likeliest
from blt.lm import BLT, ByteLM, LanguageModel
from blt.machine.precision import autocast, reading_dtype
from blt.model.packing import Spans
from blt.model.transformer import CausalTransformer, entropy, entropy_contexts
from blt.patching import Patcher, PatchingConfig, mean_patch_size, refuse_unused
from blt.patching.rules import used
from blt.serve.errors import APIError
from blt.serve.schemas import OFFERED, PatchesOut, PatchesResponse, RuleCard, RuleIn, ScoreResponse

BYTE = PatchingConfig(rule="byte")


def rule_cards() -> list[RuleCard]:
    """The rules that a request may ask for, and the parameters that each takes."""
    taken = RuleIn.model_fields.keys()
    return [
        RuleCard(
            rule=rule.name, about=rule.about, parameters=[o for o in rule.options if o in taken]
        )
        for rule in OFFERED
    ]


def parameters_of(config: PatchingConfig) -> dict[str, float]:
    """The parameters that a rule uses, of those that a request may set, by name."""
    names = RuleIn.model_fields.keys() - {"rule"}
    return {name: value for name, value in used(config).items() if name in names}


@dataclass(frozen=True)
class Analysis:
    """A model, and what cuts text for it: its own entropy model, or the one in the package."""

    lm: LanguageModel
    entropy_model: CausalTransformer
    own: PatchingConfig  # how the model cuts
    base: PatchingConfig  # parameters of rules where a request gives none

    @classmethod
    def of(cls, lm: LanguageModel) -> Analysis:
        own = lm.config.patching if isinstance(lm, BLT) else BYTE
        if isinstance(lm, BLT) and lm.entropy_model is not None:
            return cls(lm, lm.entropy_model, own, own if own.needs_entropies else PatchingConfig())
        shipped = load_shipped()
        model = lm if isinstance(lm, ByteLM) else shipped.entropy_model
        assert isinstance(model, CausalTransformer)
        model.to(lm.device)
        return cls(lm, model, own, shipped.config)

    @torch.inference_mode()
    def patches(self, data: bytes, rules: list[RuleIn]) -> PatchesResponse:
        """Entropies and surprise of each byte, and where each rule starts patches."""
        ids = vocab.encode(data).to(self.lm.device)
        spans = Spans.from_lengths([len(ids)], ids.device)
        with self._precision():
            logits = self.entropy_model(ids, entropy_contexts(ids, spans, self.own.newline_reset))
        entropies = entropy(logits)
        return PatchesResponse(
            bytes=len(data),
            entropies=entropies[:-1].tolist(),
            surprise=_bits(logits, ids).tolist(),
            patches=[
                self._cut(rule, ids, entropies, f"rules.{index}")
                for index, rule in enumerate(rules)
            ],
        )

    def _cut(self, rule: RuleIn, ids: Tensor, entropies: Tensor, where: str) -> PatchesOut:
        given = rule.model_dump(exclude_none=True)
        of = self.own.rule if rule.rule == "model" else rule.rule
        for name in given.keys() - {"rule"}:
            try:
                refuse_unused(of, [name])
            except UserError as error:
                raise APIError(422, str(error), param=f"{where}.{name}") from None
        patcher = self._patcher(rule.rule, given)
        (decisions,), _ = patcher.decide([ids], None if patcher.config.is_learned else [entropies])
        config, starts = patcher.config, decisions[:-1]
        size = mean_patch_size(len(ids), int(starts.sum()))
        found = starts[1:].nonzero().flatten().tolist()  # of bytes; BOS is not one
        return PatchesOut(rule=rule.rule, starts=found, mean_size=size, **parameters_of(config))

    def _patcher(self, rule: str, given: dict[str, Any]) -> Patcher:
        """Of a request: the model's own or another rule, with the parameters that were given."""
        if rule != "model":
            return Patcher(replace(self.base, **given), self.entropy_model)
        config = replace(self.own, **{**given, "rule": self.own.rule})
        return (
            replace(self.lm.patcher, config=config) if isinstance(self.lm, BLT) else Patcher(config)
        )

    @torch.inference_mode()
    def score(self, data: bytes) -> ScoreResponse:
        """Bits of each byte under the model."""
        logits, starts, ids = self._read(data)
        bits = _bits(logits, ids)
        mean = float(bits.sum(dtype=torch.float64)) / max(1, len(data))
        patches = int(starts.sum())
        return ScoreResponse(
            bytes=len(data), bits=bits.tolist(), bits_per_byte=mean, patches=patches
        )

    @torch.inference_mode()
    def embed(self, texts: list[bytes]) -> np.ndarray:
        """A vector of length 1 for each text  # [texts, D] float32."""
        with self._precision():
            found = self.lm.embed(texts, normalize=True)
        assert isinstance(found, Tensor)
        return found.cpu().numpy()

    @torch.inference_mode()
    def piece(self, data: bytes, alternatives: int) -> Piece:
        """A prompt as if it had been written: each byte's log-probability and alternatives."""
        logits, starts, ids = self._read(data)
        rows, totals = logits[:-1].cpu().numpy(), logits[:-1].logsumexp(-1).tolist()
        return Piece(
            data,
            (_bits(logits, ids) * -math.log(2)).tolist(),
            starts.tolist(),
            [None] * len(data),
            [
                likeliest(row, total, alternatives) if alternatives else []
                for row, total in zip(rows, totals, strict=True)
            ],
        )

    def _read(self, data: bytes) -> tuple[Tensor, Tensor, Tensor]:
        """Logits [1 + N, 260], starts [N] of the bytes, ids [1 + N]."""
        ids = vocab.encode(data).to(self.lm.device)
        with self._precision():
            if isinstance(self.lm, BLT):
                batch = self.lm.pack([ids])
                starts = torch.diff(batch.patch_ids) != 0
                return self.lm(batch).float(), starts, ids
            logits = self.lm.packed_logits([ids]).float()
        return logits, torch.ones(len(data), dtype=torch.bool), ids

    def _precision(self) -> torch.autocast:
        return autocast(self.lm.device, reading_dtype(self.lm.device))


def _bits(logits: Tensor, ids: Tensor) -> Tensor:
    """Bits of each byte of ids [1 + N], given what precedes it  # [N]."""
    log_p = logits[:-1].float().log_softmax(-1).gather(1, ids[1:, None]).flatten()
    return log_p / -math.log(2)
