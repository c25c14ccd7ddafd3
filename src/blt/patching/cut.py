"""What a patcher makes of a text: its patches, where they start, and why."""

from __future__ import annotations

import base64
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

import torch.nn.functional as F
from torch import Tensor

from blt.patching.picture import picture
from blt.patching.rules import PatchingConfig, describe, used
from blt.patching.views import mean_patch_size
from blt.vocab import OFFSET, decode


@dataclass(frozen=True)
class Patches:
    """A document cut into patches: three views of the same boundaries, and why."""

    starts: Tensor  # [T] bool, position t starts a patch
    lengths: Tensor  # [P] bytes
    ids: Tensor  # [T] patch that position t lies in
    entropies: Tensor | None  # [T] nats, of the prediction of byte t+1; None: the rule needs none
    opens_next: bool  # would position T start a patch?
    # [T] that position t+1 starts a patch, by a router; None: by another rule
    probabilities: Tensor | None = None
    read: Tensor | None = None  # [T] ids of the document; None: not known

    def _repr_html_(self) -> str | None:
        """A picture for notebooks."""
        if self.read is None:
            return None
        lengths = self.lengths.tolist()
        patches = [decode(part) for part in self.read.split(lengths)]
        entropies = None
        if self.entropies is not None:  # byte t + 1 is what was predicted at t
            before = F.pad(self.entropies, (1, 0))[: len(self.read)]
            entropies = before[self.read >= OFFSET].tolist()
        return picture(patches, entropies)

    @property
    def mean_size(self) -> float:
        """Bytes per patch; BOS, a patch of its own, is not counted."""
        return mean_patch_size(len(self.starts), len(self.lengths))


@dataclass(frozen=True)
class Cut:
    """A text cut into patches; its own bytes only, without BOS.

    Byte ``j`` of a text is position ``j + 1`` of its document, and ``entropies[j]`` is the entropy
    of its prediction.
    """

    data: bytes
    config: PatchingConfig
    lengths: list[int]  # [P] bytes
    entropies: list[float] | None  # [len(data)] nats, of the prediction of each byte
    opens_next: bool  # would a byte after the last one start a patch?
    # [len(data)] that each byte starts a patch, by a router; None: by another rule
    probabilities: list[float] | None = None

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
        return mean_patch_size(1 + len(self.data), 1 + len(self.lengths))

    def _repr_html_(self) -> str:
        """A picture for notebooks."""
        return picture(self.patches, self.entropies, self.rule)

    @property
    def rule(self) -> str:
        """The rule and the parameters that it uses, in one line."""
        return describe(self.config)

    def to_json(self) -> dict[str, Any]:
        """Plain data; ``base64`` of each patch is exact, ``text`` is null where it is not UTF-8."""
        return {
            "rule": self.config.rule,
            "parameters": used(self.config),
            "bytes": len(self.data),
            "mean_patch_size": self.mean_size,
            "patches": [
                {"text": _text(patch), "base64": base64.b64encode(patch).decode()}
                for patch in self.patches
            ],
            "lengths": self.lengths,
            "starts": self.starts,
            "entropies": self.entropies,
            **({} if self.probabilities is None else {"probabilities": self.probabilities}),
            "opens_next": self.opens_next,
        }


def _text(patch: bytes) -> str | None:
    try:
        return patch.decode()
    except UnicodeDecodeError:
        return None
