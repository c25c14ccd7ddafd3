"""A global transformer with other families' layers writes what full forwards say."""

from __future__ import annotations

import pytest
import torch

from blocks import BLOCKS, block_blt
from blt.generate import Engine
from blt.generate.incremental_blt import CachedBLT, cached
from blt.generate.weights import packed
from blt.model.compiling import is_compiled
from blt.vocab import encode
from texts import MULTILINGUAL

TEXTS = [MULTILINGUAL[:90], MULTILINGUAL[300:340], b"x"]


@pytest.mark.parametrize("native", [None, False, True], ids=["as it is", "in PyTorch", "in C++"])
@pytest.mark.parametrize("name", BLOCKS)
@torch.no_grad()
def test_cached_steps_have_the_logits_of_a_full_forward(name: str, native: bool | None) -> None:
    """Of several texts at once, each begun with another share of it."""
    lm = block_blt(BLOCKS[name])
    model = cached(lm if native is None else packed(lm, "float32", native=native), 3)
    assert isinstance(model, CachedBLT)
    documents = [encode(text).tolist() for text in TEXTS]
    model.read([ids[: 1 + len(ids) // 3] for ids in documents])
    for row, ids in enumerate(documents):
        expected, begun = lm.logits(torch.tensor(ids)), 1 + len(ids) // 3
        found = [model.logits[row]]
        for at, token_id in enumerate(ids[begun:]):
            found.append(model.extend([[token_id]], row)[0, 0])
            if at == 5:  # tried again, as if it had been a draft
                model.commit([0])
                found[-1] = model.extend([[token_id]], row)[0, 0]
            model.commit([1])
        error = (torch.stack(found) - expected[begun - 1 :]).abs().max() / expected.abs().max()
        assert float(error) < 1e-4
    memory = model.texts[0].patches
    assert memory is not None
    assert memory.memory.shape[2] == lm.config.global_block.key_value_heads(4)  # as small as that


@pytest.mark.parametrize(
    ("name", "how"),
    [
        *((name, how) for name in BLOCKS for how in ("host", "captured")),
        pytest.param("mix", "compiled", marks=pytest.mark.slow),
    ],
)
def test_every_engine_writes_the_bytes_of_full_forwards(name: str, how: str) -> None:
    """With drafts and without."""
    lm = block_blt(BLOCKS[name])
    expected = []
    for text in TEXTS:
        ids = encode(text)
        for _ in range(12):
            logits = lm.logits(ids)[-1]
            logits[:4] = -torch.inf
            ids = torch.cat((ids, logits.argmax(keepdim=True)))
        expected.append(bytes((ids[-12:] - 4).tolist()))
    if how == "compiled":
        lm.compile()
        assert is_compiled(lm)
    for draft_bytes in (0, 3):
        engine = Engine(lm, max_batch=2, captured=how == "captured", draft_bytes=draft_bytes)
        options = {"max_bytes": 12, "temperature": 0.0, "ignore_eos": True, "valid_utf8": False}
        handles = [engine.submit(text, **options) for text in TEXTS]
        engine.run()
        assert [handle.result().data for handle in handles] == expected
