"""Some patches come late to the bytes that would see them, as to those that a draft guesses."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch._subclasses.fake_tensor import FakeTensorMode

from blt.data.loader import loader_of
from blt.errors import UserError
from blt.model.packing import PackedBatch, pack
from blt.train.feed import Feed
from blt.train.recipe import read_recipe
from blt.train.stale import MOST_BYTES, without_newest
from shapes import random_blt

Cuts = st.lists(st.lists(st.booleans(), min_size=1, max_size=40), min_size=1, max_size=4)


def packed(cuts: list[list[bool]]) -> PackedBatch:
    documents = [torch.arange(len(opens)) + 4 for opens in cuts]
    return pack(documents, [torch.tensor([True, *opens]) for opens in cuts])


def one_by_one(batch: PackedBatch, share: float, seed: int) -> list[int]:
    """Byte by byte, with the same draws."""
    generator = torch.Generator().manual_seed(seed)
    draws = torch.rand(batch.num_patches, generator=generator).tolist()
    lengths = torch.randint(1, MOST_BYTES + 1, (len(draws),), generator=generator).tolist()
    found: list[int] = []
    for ids in batch.documents.split(batch.decoder_patch_ids):
        shown = newest = int(ids[0])
        left = 0  # bytes of the draft that is being written
        for patch in ids.tolist():
            if patch > newest:
                newest = patch
                left = max(left, lengths[patch] if draws[patch] < share else 0)
            if left == 0:
                shown = newest
            left = max(0, left - 1)
            found.append(shown)
    return found


@given(Cuts, st.sampled_from([0.0, 0.3, 1.0]), st.integers(0, 99))
def test_bytes_see_what_a_draft_would(cuts: list[list[bool]], share: float, seed: int) -> None:
    batch = packed(cuts)
    late = without_newest(batch, share, torch.Generator().manual_seed(seed))
    assert late.decoder_patch_ids.tolist() == one_by_one(batch, share, seed)
    assert bool((late.decoder_patch_ids <= batch.decoder_patch_ids).all())
    firsts = batch.documents.offsets[:-1]
    for first, own in zip(firsts, batch.documents.split(late.decoder_patch_ids), strict=True):
        assert int(own.min()) == int(batch.decoder_patch_ids[first])  # never of another document
    if share == 0:
        assert torch.equal(late.decoder_patch_ids, batch.decoder_patch_ids)


def test_nothing_is_read_from_the_device() -> None:
    batch = packed([[True, False, False, True] * 9])
    with FakeTensorMode(allow_non_fake_inputs=True) as mode:
        fake = batch.to(torch.device("cpu"))
        assert mode is not None
        without_newest(fake, 0.5, torch.Generator())


def test_the_same_batch_is_shown_the_same_and_another_otherwise() -> None:
    lm = random_blt("static", stride=3)
    documents = [bytes(range(n, n + 60)) for n in range(9)]

    def feed(share: float, skipped: int = 0) -> Feed:
        loader = loader_of(documents, batch_bytes=150, context_bytes=60)
        for _ in range(skipped):
            next(loader)
        return Feed(lm, loader, torch.float32, share)

    def seen(one: Feed) -> torch.Tensor:
        (batch,) = next(one).inputs
        return batch.decoder_patch_ids

    whole, taken_up, plain = feed(0.5), feed(0.5, skipped=1), feed(0.0)
    first, second = seen(whole), seen(whole)
    assert torch.equal(second, seen(taken_up))
    honest = seen(plain)
    assert not torch.equal(first, honest)
    share = float((first < honest).float().mean())
    assert 0.2 < share < 0.99
    for one in (whole, taken_up, plain):
        one.ahead.close()


@pytest.mark.parametrize(
    ("kind", "share", "message"),
    [("byte", 0.1, "only for kind 'blt'"), ("blt", 1.5, "between 0 and 1")],
)
def test_it_is_refused_where_there_are_no_patches(
    tmp_path: Path, kind: str, share: float, message: str
) -> None:
    path = tmp_path / "recipe.toml"
    path.write_text(
        f'kind = "{kind}"\n[data]\nsources = ["x"]\n[train]\nsteps = 1\nstale_patches = {share}\n'
        + ('[model.patching]\nrule = "space"\n' if kind == "blt" else "")
    )
    with pytest.raises(UserError, match=message):
        read_recipe(path)
