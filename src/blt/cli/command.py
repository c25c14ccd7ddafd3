"""The command ``blt``: finds the verb, runs it, and turns mistakes into one line."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable, Sequence
from itertools import pairwise

from blt import __version__
from blt.cli.output import print_anything, say
from blt.cli.verbs import VERBS, find, overview
from blt.errors import UserError, nearest

HELP = ("-h", "--help")
CHANGE = re.compile(r"[a-z_]+(\.[a-z_]+)*=")  # of a recipe's value
VALUED = re.compile(r"--(?!(resume|scratch|json)$)[^=]+$")  # an option; its value comes next
WAYS_OUT = {
    FileNotFoundError: "check the path",
    PermissionError: "check its permissions",
    IsADirectoryError: "give a file, not a folder",
    NotADirectoryError: "give a folder, not a file",
}
NO_MEMORY = ("out of memory", "DefaultCPUAllocator: can't allocate")  # PyTorch's words
TRAIN = ("train", "byteify", "study")
TRAIN_ON_LESS = (
    "`blt plan RECIPE` tells what a step takes: try a smaller data.batch_bytes (train.accumulate "
    "makes up for it), train.recompute=true, a smaller model"
)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one verb; returns the exit status: 0, 1 where damage was looked for and found, 2 for a
    user's mistake, 130 for Ctrl-C."""
    args = list(sys.argv[1:] if argv is None else argv)
    if args in (["--version"], ["-V"]):
        print(f"blt {__version__}")
        return 0
    print_anything()
    args = args or ["--help"]
    try:
        status = _run(args)
        sys.stdout.flush()
        return status
    except KeyboardInterrupt as interrupt:
        say(f"blt: {str(interrupt) or 'interrupted'}", file=sys.stderr)
        return 130
    except BrokenPipeError:
        # Whoever read our output has left: so do we, without a word at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except (OSError, ValueError, MemoryError, RuntimeError) as error:
        if os.environ.get("BLT_DEBUG") or not _is_known(error):
            raise
        say(f"blt: {_one_line(error, args[0])}", file=sys.stderr)
        return 2


def _run(args: list[str]) -> int:
    verb, *rest = args
    if verb in HELP:
        print(overview())
        return 0
    if verb not in VERBS:
        known = nearest(verb, list(VERBS))
        raise UserError(f"unknown verb {verb!r}: {known}; `blt --help` explains them")
    try:
        if verb == "lm-eval" and not (len(rest) == 1 and rest[0] in HELP):  # others' options
            return find(verb)(tuple(rest)) or 0
        return _parse_and_run(find(verb), verb, _changes_last(args)[1:])
    except SystemExit as stop:  # --help, or arguments that tyro has already explained
        return stop.code if isinstance(stop.code, int) else 2


def _parse_and_run(function: Callable[..., int | None], verb: str, options: list[str]) -> int:
    import tyro  # late: the overview does without

    conf = tyro.conf
    status: int | None = tyro.cli(
        function,
        prog=f"blt {verb}",
        args=options,
        config=(conf.FlagCreatePairsOff, conf.DisallowNone, conf.OmitArgPrefixes),
    )
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


def _is_known(error: Exception) -> bool:
    """Can a line tell the user all about it? Other errors of a run are mistakes of this program."""
    is_other = isinstance(error, RuntimeError) and not isinstance(error, RecursionError)
    return not is_other or _is_out_of_memory(error)


def _is_out_of_memory(error: Exception) -> bool:
    """Also as PyTorch says it, in words alone on a CPU; asking for its class would load it."""
    says_so = isinstance(error, RuntimeError) and any(word in str(error) for word in NO_MEMORY)
    return says_so or isinstance(error, MemoryError)


def _one_line(error: Exception, verb: str) -> str:
    """What, where and the way out."""
    if isinstance(error, OSError) and error.filename is not None:
        way_out = WAYS_OUT.get(type(error))
        message = f"{os.fsdecode(error.filename)}: {error.strerror}"
        return f"{message}; {way_out}" if way_out else message
    if _is_out_of_memory(error):
        less = TRAIN_ON_LESS if verb in TRAIN else "give it less at once"
        return f"out of memory; {less}, or a larger machine"
    return " ".join(str(error).split()) or type(error).__name__
