"""A study that is over in seconds: its file, changes to it, and copies of what it left."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

STUDY = """
budgets = [1e8, 2e8]
seeds = [2, 1]
rate_tries = [3, 1]
lrs = [2e-3, 1e-2, 5e-2]
heldout_bytes = {{ strange = 200 }}
validation_bytes = 400
[base.data]
sources = [{text}]
context_bytes = 64
batch_bytes = 256
heldout = 0.2
[base.train]
evals = 0
precision = "float32"
sample_prompts = []
[ladders]
bytes = [
    ["byte_model.dim=16", "byte_model.heads=2", "byte_model.layers=1", "byte_model.ff_dim=32"],
    ["byte_model.dim=32", "byte_model.heads=2", "byte_model.layers=1", "byte_model.ff_dim=32"],
]
[heldout.known]
bottles = [{text}]
[heldout.strange]
one = [{other}]
two = [{other}]
[[patchers]]
name = "tiny"
share = 0.1
[patchers.recipe]
kind = "byte"
train = {{ lr = 1e-2 }}
byte_model = {{ dim = 8, heads = 1, layers = 1, ff_dim = 16, sliding_window = 8 }}
[[families]]
name = "flat"
group = "bytes"
recipe = {{ kind = "byte" }}
sizes = "bytes"
[[families]]
name = "BLT, entropy"
group = "patches"
patcher = "tiny"
sizes = [{blt}]
[families.recipe]
kind = "blt"
target_patch_size = 3.0
model = {{ patching = {{ rule = "entropy" }} }}
"""
WIDE = """[[families]]
name = "wide"
group = "bytes"
varies = "flat"
joins = 2e8
recipe = { kind = "byte" }
sizes = "bytes"
"""
ASKED = "[[evaluations]]\ntask = 'utf8'\n"
BLT = [
    f"model.{change}"
    for change in (
        *("local_dim=16", "local_heads=2", "encoder_ff_dim=32", "decoder_layers=1"),
        *("decoder_ff_dim=32", "global_dim=32", "global_heads=2", "global_layers=1"),
        *("global_ff_dim=64", "hash_rows=100"),
    )
]


def written(tmp_path: Path) -> Path:
    """The file of a small study, with its text."""
    text, other = tmp_path / "text.txt", tmp_path / "other.txt"
    text.write_text("".join(f"{n} bottles of beer on the wall, " for n in range(400)))
    other.write_text("".join(f"one more for number {n} of these. " for n in range(100)))
    names = {"text": json.dumps(str(text)), "other": json.dumps(str(other))}
    path = tmp_path / "study.toml"
    path.write_text(STUDY.format(**names, blt=json.dumps(BLT)))
    return path


def copied(done: Path, folder: Path) -> tuple[Path, Path]:
    """The file of a study that has run, and its folder, to be changed."""
    out = shutil.copytree(done.parent / "out", folder / "out")
    return Path(shutil.copy(done, folder / "study.toml")), Path(out)


def changed(file: Path, old: str, new: str) -> Path:
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new))
    return file
