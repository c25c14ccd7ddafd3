"""Between bytes and updated weights the host reads nothing of what the device computes.

Fake tensors have shapes and no values: whatever reads one raises.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch._subclasses.fake_tensor import (
    DataDependentOutputException,
    DynamicOutputShapeException,
    FakeTensorMode,
)

import blt
from blt import vocab
from blt.lm import LanguageModel, TokenLM
from blt.model.config import TokenTransformerConfig
from blt.model.embedding import NgramTables
from blt.model.kernels import blocks
from blt.model.language import Batch, Ready
from blt.model.transformer import CausalTransformer
from blt.train.optim import MatrixOptimizer, optimizers
from blt.train.update import Guard, RowGradients, total_norm, update
from shapes import TINY, tiny_config

MODELS: dict[str, Callable[[], LanguageModel]] = {
    "blt": lambda: blt.BLT(tiny_config()),
    "byte": lambda: blt.ByteLM(TINY),
    "token": lambda: TokenLM(TokenTransformerConfig(vocab_size=300, dim=16, heads=2, layers=1)),
    "byte with tables": lambda: blt.ByteLM(
        replace(TINY, hash_ngram_sizes=(2, 4), hash_rows=50, hash_fold=("case", "repeats"))
    ),
    "token with tables": lambda: TokenLM(
        TokenTransformerConfig(
            vocab_size=300, dim=16, heads=2, layers=1, hash_ngram_sizes=(2, 4), hash_rows=50,
            hash_of="bytes", hash_fold=("repeats",), hash_gate=True,
        )
    ),
}  # fmt: skip


@pytest.fixture(autouse=True)
def no_fake_mask_is_kept() -> Iterator[None]:
    """Masks of attention are cached, and a fake one would hide nothing from later tests."""
    yield
    for cached in (blocks._future, blocks._outside_window):
        cached.cache_clear()


def ready_of(model: LanguageModel) -> Ready:
    """A batch as the thread that reads ahead leaves it for a GPU."""
    documents = [blt.encode(bytes(range(n, n + 40 + n))) for n in range(3)]
    targets = torch.cat([F.pad(ids[1:], (0, 1), value=vocab.PAD) for ids in documents])
    batch = Batch(documents, targets)
    if not isinstance(model, blt.BLT):
        ready = LanguageModel.ready(model, batch)
        assert isinstance(model, CausalTransformer)
        if model.tables is None:
            return ready
        ids, spans = ready.inputs
        groups = model.tables.groups(ids, spans.positions)
        return ready._replace(inputs=(ids, spans, None, groups))
    ready = model.ready(batch)
    (packed,) = ready.inputs
    groups = model.encoder.embedding.groups(packed.ids, packed.documents.positions)
    return ready._replace(inputs=(replace(packed, ngrams=groups),))


def step(model: LanguageModel, batches: list[Ready], optimizer: MatrixOptimizer) -> torch.Tensor:
    """Forward, loss and backward of each batch, norm, and the update; the norm."""
    made = optimizers(model, 1e-3, (0.9, 0.95), 0.1, optimizer)
    parameters = [p for p in model.parameters() if p.requires_grad]
    guard = Guard.new(model.device, 10.0)
    rows = RowGradients(parameters)
    for ready in batches:
        logits = model.predict(ready)
        nats = F.cross_entropy(logits.float(), ready.targets, ignore_index=vocab.PAD)
        nats.backward()  # type: ignore[no-untyped-call]
        rows.take()
    rows.give_back()
    norm = total_norm(parameters, rows_once=True)
    out = guard.leaves_out(nats.detach(), norm)
    update(made, parameters, lr=1e-3, clip=1.0, norm=norm, out=out)
    return norm


@pytest.mark.parametrize("accumulate", [1, 2])
@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
@pytest.mark.parametrize("kind", MODELS)
def test_a_training_step_reads_nothing_from_the_device(
    kind: str, optimizer: MatrixOptimizer, accumulate: int
) -> None:
    model = MODELS[kind]()
    for module in model.modules():
        if isinstance(module, NgramTables):
            module.sparse_gradients = True
    ready = ready_of(model)
    with FakeTensorMode(allow_non_fake_inputs=True):
        norm = step(model, [ready] * accumulate, optimizer)
        with pytest.raises(DataDependentOutputException):
            norm.item()


def test_rows_that_were_not_grouped_ahead_would_be_read() -> None:
    """So the test above can fail."""
    model = blt.BLT(tiny_config())
    (packed,) = (ready := ready_of(model)).inputs
    ready = ready._replace(inputs=(replace(packed, ngrams=None),))
    with FakeTensorMode(allow_non_fake_inputs=True), pytest.raises(DynamicOutputShapeException):
        step(model, [ready], "adamw")
