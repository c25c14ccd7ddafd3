"""A user's program: `mypy --strict` accepts it, and it runs: see test_public_api.py."""

from pathlib import Path

import torch

import blt
from blt.errors import UserError
from blt.generate import Engine, Generation, Sampling
from blt.scoring.bits import bits_per_byte
from blt.train import DataConfig, Recipe, TrainConfig, train_recipe


def score(lm: blt.LanguageModel, text: str) -> float:
    ids: torch.Tensor = blt.encode(text)
    logits: torch.Tensor = lm.logits(ids)
    ragged: list[torch.Tensor] = lm.logits([ids, blt.encode(b"\xff\x00")])
    assert torch.allclose(logits, ragged[0], atol=1e-4)
    assert blt.decode(ids) == text.encode()
    assert abs(lm.bits_per_byte(text) - bits_per_byte(lm, [text.encode()])) < 1e-4
    (likelihood,) = lm.log_likelihoods([(b"The old", b" man")])
    return likelihood


def cut(text: str) -> list[int]:
    lm = blt.load()
    if not isinstance(lm, blt.BLT):
        raise TypeError
    patches: blt.Patches = lm.patch(text)
    lengths: list[int] = patches.lengths.tolist()
    assert sum(lengths) == len(text.encode()) + 1
    return lengths


def write(lm: blt.LanguageModel) -> str:
    one: Generation = lm.generate("The old man ", max_bytes=4)
    two: list[Generation] = lm.generate(["a", b"\xff"], max_bytes=4, temperature=0.8)
    with Engine(lm, max_batch=2) as engine:
        handle = engine.submit("Once", Sampling(max_bytes=4))
        pieces: list[str] = list(handle.text())
    return one.text + two[0].text + "".join(pieces)


def train(text: Path, run: Path) -> blt.LanguageModel:
    shape = blt.ByteTransformerConfig(dim=16, heads=2, layers=1, ff_dim=32, sliding_window=32)
    data = DataConfig((str(text),), context_bytes=100, batch_bytes=256)
    lm = train_recipe(Recipe("byte", data, TrainConfig(steps=2), byte_model=shape), run)
    lm.save(run / "copy")
    return blt.load(run / "copy")


def misuse() -> str:
    try:
        blt.load("no/such/folder")
    except UserError as error:
        return str(error)
    raise AssertionError


def build() -> blt.BLT:
    entropy_model = blt.ByteTransformerConfig(dim=16, heads=2, layers=1, ff_dim=32)
    rule = blt.PatchingConfig(rule="space")
    config = blt.Config(
        local_dim=16,
        local_heads=2,
        global_dim=32,
        global_heads=2,
        global_layers=1,
        hash_rows=100,
        patching=rule,
        entropy_model=entropy_model,
    )
    return blt.BLT(config)
