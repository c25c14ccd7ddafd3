"""Folders that programs wrote, which are not text although text is in them."""

from __future__ import annotations

import os
from collections.abc import Collection

from blt.data.manifest import MANIFEST, UNITS

WEIGHTS = (".safetensors", ".safetensors.index.json", ".pth", ".pt", ".bin")
NAME_IT = "name a text; what is in there can be named file by file"
# What it is, and the way out.
PREPARED = ("written by blt prepare", "name the text that it was made of")
UNFINISHED = (
    "left unfinished by blt prepare",
    "run blt prepare again with the same options: it goes on where it was",
)
MODEL = ("a model", NAME_IT)
RUN = ("a run of blt train", NAME_IT)
STUDY = ("a study", NAME_IT)
DATASET = (
    "saved by datasets' save_to_disk",
    'write its text as Parquet: datasets.load_from_disk(FOLDER)["train"].to_parquet("a.parquet")',
)


def written_as(names: Collection[str]) -> tuple[str, str] | None:
    """What a folder with files of these names is, if it is no folder of text, and the way out."""
    names = set(names)
    lengths = any(name.endswith(".lengths") for name in names)
    if "unit.json" in names or (names & {"plan.json", MANIFEST} and UNITS in names):
        return PREPARED if MANIFEST in names or "unit.json" in names else UNFINISHED
    if lengths and UNITS in names:
        return UNFINISHED
    if "dataset_dict.json" in names or names >= {"dataset_info.json", "state.json"}:
        return DATASET
    if names & {"config.json", "params.json"} and any(name.endswith(WEIGHTS) for name in names):
        return MODEL
    if "recipe.toml" in names and names & {"metrics.jsonl", "checkpoint"}:
        return RUN
    return STUDY if "plan.json" in names and names & {"results.jsonl", "search.jsonl"} else None


def folder_written_as(folder: str) -> tuple[str, str] | None:
    """The same of a folder on disk."""
    try:
        return written_as(os.listdir(folder or "."))
    except OSError:
        return None
