"""The verbs by what they are for, and the help that lists them, without importing one."""

from __future__ import annotations

import textwrap
from collections.abc import Callable
from importlib import import_module
from typing import Any

DESCRIPTION = """usage: blt [-h] [--version] VERB ...

Byte Latent Transformer: language models that read bytes, not tokens.

Start with `blt patch "some text"`, or train a model of your own in ten minutes with `blt demo`.
`blt VERB --help` explains a verb."""
WIDTH = 96  # of the lines above
GROUPS = {
    "write and read text": {
        "patch": "Cut text into patches, and show where and why.",
        "generate": "Let a model continue a prompt.",
        "chat": "Talk to a model in the terminal.",
    },
    "train": {
        "demo": "Train a small model in ten minutes, and compare and watch it.",
        "prepare": "Turn text into shards to train on: read once, divided, entropies computed "
        "ahead.",
        "plan": "Tell what training a recipe takes: parameters, FLOPs, memory, time, cost.",
        "train": "Train the model that a recipe describes.",
        "byteify": "Turn a token model into a byte model: a BLT whose global transformer begins "
        "as its layers.",
    },
    "measure": {
        "eval": "Measure models: bits per byte, noise, languages, valid UTF-8, CUTE, BLiMP and "
        "more.",
        "lm-eval": "Run lm-evaluation-harness with --model blt; the arguments are those of its "
        "lm_eval.",
        "study": "Search, train, score and draw families of models at equal FLOPs.",
        "report": "Write an HTML report of a training, or one that compares several; no network "
        "needed.",
    },
    "models and files": {
        "convert": "Write a model in another layout: ours, that of transformers, or Meta's.",
        "verify": "Read a model, a run or prepared text whole, and name what is damaged in it.",
        "push": "Upload a model folder to the Hugging Face hub, with a card; log in with "
        "`hf auth login`.",
    },
    "serve": {
        "serve": "Serve a model over HTTP, to OpenAI's clients and to browsers.",
    },
}
VERBS = {verb: line for verbs in GROUPS.values() for verb, line in verbs.items()}


def find(verb: str) -> Callable[..., int | None]:
    """The function of a verb: in the module of its name, and called as that."""
    name = verb.replace("-", "_")
    found: Any = import_module(f"blt.cli.{name}")
    return getattr(found, name)


def overview() -> str:
    """What ``blt --help`` prints: each verb with the first line of its own help."""
    return "\n".join([DESCRIPTION, *map(_group, GROUPS)])


def _group(title: str) -> str:
    return "\n".join([f"\n{title}:", *(_verb(*verb) for verb in GROUPS[title].items())])


def _verb(verb: str, line: str) -> str:
    return textwrap.fill(f"  {verb:<9} {line}", WIDTH, subsequent_indent=" " * 12)
