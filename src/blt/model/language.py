"""The contract: what scoring, training, conversion and the engine need of a language model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor, nn

from blt import vocab
from blt.model.blt import ByteLatentTransformer
from blt.model.config import ByteTransformerConfig, Config, TokenTransformerConfig
from blt.model.prefix_tree import PrefixTree
from blt.model.transformer import CausalTransformer

KINDS: dict[str, tuple[type[nn.Module], type[Any]]] = {  # of models, and of their configs
    "blt": (ByteLatentTransformer, Config),
    "byte": (CausalTransformer, ByteTransformerConfig),
    "token": (CausalTransformer, TokenTransformerConfig),
}

ByteModel = ByteLatentTransformer | CausalTransformer  # that can be written with byte by byte


@dataclass(frozen=True)
class Batch:
    """Documents to lay end to end, N ids together, and what to predict after each."""

    documents: list[Tensor]  # ids, each [T] int64, BOS first
    targets: Tensor  # [N] int64; PAD where there is nothing to predict (after EOS, at a cut)
    # Nats, each [T] float32; None: those of a document, or of all, are not known.
    entropies: list[Tensor | None] | None = None
    state: dict[str, Any] = field(default_factory=dict)  # of the loader, after this batch

    @property
    def num_bytes(self) -> int:
        """Bytes of text, without special ids."""
        return sum(int((ids >= vocab.OFFSET).sum()) for ids in self.documents)

    @property
    def num_targets(self) -> int:
        """Ids to predict."""
        return int((self.targets != vocab.PAD).sum())


class Ready(NamedTuple):
    """A training batch as a model reads it, on its device."""

    batch: Batch  # on the CPU
    inputs: tuple[Any, ...]  # what the model's forward takes
    targets: Tensor  # [M] what comes after every position; PAD where nothing is to predict
    patch_size: float | None  # mean bytes per patch or token; None: without either, or not yet cut


class Score(NamedTuple):
    """What a model says about a continuation."""

    log_p: float  # nats
    greedy: bool  # is it what greedy generation would write?


class CausalLM(Protocol):
    """A language model that reads bytes, as whatever ids, and says what comes next."""

    kind: str  # blt, byte, token, or a name of its own
    config: Any
    scoring_ids: int  # of continuations that are scored together

    @property
    def device(self) -> torch.device: ...

    @property
    def shares_prefixes(self) -> bool:
        """Whether there is a :meth:`tree_logits`."""
        ...

    def ids_of(self, text: bytes) -> Tensor:
        """The ids as which the model reads a text, BOS first  # [T] int64."""
        ...

    def first_of(self, prompt: bytes, ids: Tensor) -> int:
        """Index of the first id after the prompt, in the ids of a text that begins with it."""
        ...

    def packed_logits(self, documents: Sequence[Tensor]) -> Tensor:
        """Documents, each ids [T] with T >= 1 → logits of all, end to end  # [N, V]."""
        ...

    def tree_logits(self, tree: PrefixTree) -> Tensor:
        """Logits after every row of documents that share what they begin with  # [N, V]."""
        ...
