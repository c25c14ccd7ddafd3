"""The command ``blt``: one verb per job. Imports that are slow happen inside the verbs."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import tyro

from blt import __version__
from blt.cli import models, text, training, writing
from blt.views.console import print_anything, say

DESCRIPTION = """Byte Latent Transformer: language models that read bytes, not tokens.

Start with `blt patch "some text"`, or train a model of your own in ten minutes with `blt demo`.
`blt VERB --help` explains a verb."""
VERBS: dict[str, Any] = {
    "patch": text.patch,
    "prepare": text.prepare,
    "plan": training.plan,
    "train": training.train,
    "byteify": training.byteify,
    "eval": models.evaluate,
    "lm-eval": models.harness,
    "study": training.study,
    "report": training.report,
    "generate": writing.generate,
    "convert": models.convert,
    "verify": models.verify,
    "push": models.push,
    "serve": writing.serve,
    "demo": training.demo,
}
CHANGE = re.compile(r"[a-z_]+(\.[a-z_]+)*=")  # of a recipe's value
VALUED = re.compile(r"--(?!(resume|scratch|json)$)[^=]+$")  # an option; its value comes next
WAYS_OUT = {
    FileNotFoundError: "check the path",
    PermissionError: "check its permissions",
    IsADirectoryError: "give a file, not a folder",
    NotADirectoryError: "give a folder, not a file",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run one verb; returns the exit status: 0, 1 where damage was looked for and found, 2 for a
    user's mistake, 130 for Ctrl-C."""
    args = list(sys.argv[1:] if argv is None else argv)
    if args in (["--version"], ["-V"]):
        print(f"blt {__version__}")
        return 0
    print_anything()
    try:
        status = _run(args or ["--help"])
        sys.stdout.flush()
        return status
    except KeyboardInterrupt as interrupt:
        say(f"blt: {str(interrupt) or 'interrupted'}", file=sys.stderr)
        return 130
    except BrokenPipeError:
        # Whoever read our output has left: so do we, without a word at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except (OSError, ValueError, MemoryError, RecursionError) as error:
        if os.environ.get("BLT_DEBUG"):
            raise
        say(f"blt: {_one_line(error)}", file=sys.stderr)
        return 2


def _run(args: list[str]) -> int:
    try:
        if args[0] == "lm-eval" and args[1:] not in (["--help"], ["-h"]):  # others' options
            return models.harness(tuple(args[1:]))
        status = tyro.extras.subcommand_cli_from_dict(
            VERBS,
            prog="blt",
            description=DESCRIPTION,
            args=_changes_last(args),
            config=(tyro.conf.FlagCreatePairsOff, tyro.conf.DisallowNone),
        )
    except SystemExit as stop:  # --help, or arguments that tyro has already explained
        return stop.code if isinstance(stop.code, int) else 2
    return status or 0


def _changes_last(args: list[str]) -> list[str]:
    """Changes to a recipe may stand anywhere; tyro wants them together."""
    if args[0] not in ("plan", "train", "byteify"):
        return args
    changed = {
        index
        for index, (before, word) in enumerate(pairwise(args), 1)
        if CHANGE.match(word) and not VALUED.match(before)
    }
    rest = [word for index, word in enumerate(args) if index not in changed]
    return rest + [args[index] for index in sorted(changed)]


def _one_line(error: Exception) -> str:
    """What, where and the way out."""
    if isinstance(error, OSError) and error.filename is not None:
        way_out = WAYS_OUT.get(type(error))
        message = f"{os.fsdecode(error.filename)}: {error.strerror}"
        return f"{message}; {way_out}" if way_out else message
    if isinstance(error, MemoryError):
        return "out of memory; give it less at once, or a larger machine"
    return " ".join(str(error).split()) or type(error).__name__
