"""Cut any text by any rule: what ``blt patch`` does, as one object that holds the result.

A document's BOS is an internal position and a patch of its own. It is left out here: byte ``j`` of
a text is position ``j + 1`` of its document, and ``H[j]`` is the entropy of its prediction.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate
from pathlib import Path
from typing import Any

from torch import Tensor

from blt import lm, patching, vocab
from blt.checkpoint.pretrained import Patcher, load_patcher, load_shipped
from blt.errors import UserError
from blt.files.configs import from_dict, to_dict
from blt.model.byte_transformer import ByteTransformer
from blt.patching import PatchingConfig
from blt.patching.tables import read_lookup_table, token_offsets, write_lookup_table


@dataclass(frozen=True)
class Cut:
    """A text cut into patches; its own bytes only, without BOS."""

    data: bytes
    config: PatchingConfig
    lengths: list[int]  # [P] bytes
    entropies: list[float] | None  # [len(data)] nats, of the prediction of each byte
    opens_next: bool  # would a byte after the last one start a patch?

    @property
    def starts(self) -> list[int]:
        """Offset of each patch's first byte [P]."""
        return list(accumulate(self.lengths, initial=0))[:-1]

    @property
    def patches(self) -> list[bytes]:
        return [
            self.data[start : start + length]
            for start, length in zip(self.starts, self.lengths, strict=True)
        ]

    @property
    def mean_size(self) -> float:
        """Bytes per patch; 0 for an empty text."""
        return len(self.data) / max(1, len(self.lengths))

    def to_json(self) -> dict[str, Any]:
        """Plain data; ``base64`` of each patch is exact, ``text`` is null where it is not UTF-8."""
        return {
            "rule": self.config.rule,
            "parameters": to_dict(self.config, keep_none=False),
            "bytes": len(self.data),
            "mean_patch_size": self.mean_size,
            "patches": [
                {"text": _text(patch), "base64": base64.b64encode(patch).decode()}
                for patch in self.patches
            ],
            "lengths": self.lengths,
            "starts": self.starts,
            "entropies": self.entropies,
            "opens_next": self.opens_next,
        }


def _text(patch: bytes) -> str | None:
    try:
        return patch.decode()
    except UnicodeDecodeError:
        return None


@dataclass(frozen=True)
class Cutter:
    """A rule with everything it needs: entropy model, table or tokenizer."""

    config: PatchingConfig
    entropy_model: ByteTransformer | None = None
    lookup: tuple[Tensor, int] | None = None
    bpe: Callable[[bytes], Sequence[int]] | None = None

    def cut(self, data: bytes) -> Cut:
        """Cut one document."""
        ids = vocab.encode(data)
        found = lm.patch(self.config, self.entropy_model, ids, lookup=self.lookup, bpe=self.bpe)
        # Position 1 always starts a patch, so the first one is BOS alone.
        entropies = None if found.entropies is None else found.entropies[: len(data)].tolist()
        return Cut(data, self.config, found.lengths[1:].tolist(), entropies, found.opens_next)

    def calibrated(self, data: bytes, target: float) -> Cutter:
        """With θ set so that the patches of ``data`` have ``target`` bytes on average."""
        if not data:
            raise UserError("no bytes to calibrate a threshold on")
        ids = vocab.encode(data)
        entropies = self.entropies(data)
        # calibrate() also counts BOS as a patch of one byte.
        with_bos = len(ids) / (len(data) / max(1.0, target) + 1)
        config = patching.calibrate([(ids, entropies)], min(with_bos, target), self.config)
        return replace(self, config=config)

    def write_table(self, data: bytes, path: Path, order: int) -> str:
        """Write a table for the ``lookup`` rule, observed on ``data``; returns a line about it."""
        entropies, threshold = self.entropies(data), self.config.threshold
        count = write_lookup_table(path, vocab.encode(data), entropies, order, threshold)
        return f"{path}: patches start after {count} of the {order}-grams in {len(data)} bytes"

    def entropies(self, data: bytes) -> Tensor:
        """[1 + len(data)] nats, of the prediction of every byte and of the one after the last."""
        if self.entropy_model is None:
            raise UserError(f"rule {self.config.rule!r} has no entropies, and no threshold")
        ids = vocab.encode(data)
        return lm.document_entropies(self.entropy_model, [ids], self.config.newline_reset)[0]


def build(
    rule: str | None,
    parameters: dict[str, Any],
    *,
    model: Path | None = None,
    table: Path | None = None,
    tokenizer: Path | None = None,
) -> Cutter:
    """A cutter from a user's choices.

    Args:
        rule: None for the one that belongs to the model.
        parameters: fields of :class:`PatchingConfig`; None stands for the model's own value.
        model: folder of a BLT or byte model; None for the shipped entropy model.
        table: safetensors file of the ``lookup`` rule.
        tokenizer: ``tokenizer.json`` of the ``bpe`` rule.

    Raises:
        UserError: an unknown rule, an impossible value, a missing or damaged file.
    """
    given = {key: value for key, value in parameters.items() if value is not None}
    given |= {"rule": rule} if rule is not None else {}
    config = from_dict(PatchingConfig, given, "blt patch")
    patcher = Patcher(None, config)
    if rule is None or config.needs_entropies or model is not None:
        patcher = load_patcher(model) if model is not None else load_shipped()
        config = from_dict(PatchingConfig, to_dict(patcher.config) | given, "blt patch")
    patching.refuse_unused(config.rule, given)
    return Cutter(
        config,
        patcher.entropy_model if config.needs_entropies else None,
        read_lookup_table(table) if config.rule == "lookup" else None,
        token_offsets(tokenizer) if config.rule == "bpe" else None,
    )
