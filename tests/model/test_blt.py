"""The whole model equals its parts put together by hand, document by document."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

import blt
from blt.model.packing import Spans
from shapes import tiny_config
from texts import MULTILINGUAL


def by_hand(model: blt.BLT, ids: Tensor) -> Tensor:
    """Logits of one document without cross-attention, patch after patch."""
    starts = [i for i, start in enumerate(model.patch(ids).starts.tolist()) if start]
    patches = list(zip(starts, [*starts[1:], len(ids)], strict=True))
    spans = Spans.from_lengths([len(ids)])
    x = model.encoder.transformer(model.encoder.embedding(ids, spans.positions), spans)
    pooled = torch.stack([x[a:b].amax(0) for a, b in patches])
    latents = model.global_transformer(
        model.encoder.patch_projection(pooled), Spans.from_lengths([len(patches)])
    )
    added = model.decoder.patch_projection(latents)
    rows = []
    for i in range(len(ids)):
        complete = [p for p, (_, end) in enumerate(patches) if end <= i + 1]
        last = i + 1 == len(ids) and not model.patch(ids).opens_next
        rows.append(added[complete[-1 - last]])
    x = model.decoder.transformer(x + torch.stack(rows), spans)
    return model.decoder.head(model.decoder.norm(x))


@pytest.mark.parametrize("rule", ["space", "static"])
def test_without_cross_attention_a_patch_is_added_to_the_bytes_that_see_it(rule: str) -> None:
    torch.manual_seed(0)
    config = tiny_config(
        patching=blt.PatchingConfig(rule=rule, stride=3),  # type: ignore[arg-type]
        entropy_model=None,
        hash_ngram_sizes=(),
        encoder_cross_attention="none",
        decoder_cross_attention="none",
    )
    model = blt.BLT(config).eval()
    assert not any("cross" in name for name, _ in model.named_parameters())
    documents = [blt.encode(MULTILINGUAL[a:b]) for a, b in ((0, 200), (500, 501), (900, 1000))]
    with torch.no_grad():
        for ids, logits in zip(documents, model.logits(documents), strict=True):
            torch.testing.assert_close(logits, by_hand(model, ids), rtol=1e-4, atol=1e-4)
