"""``python -m benchmarks NAME``, from the root of the repository: one file, one measurement.

Imports that are slow happen inside the chosen one.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from functools import wraps
from pathlib import Path
from typing import Any, Literal

import tyro
from tyro.conf import Positional

from benchmarks.report import check_output
from blt.cli.output import say
from blt.errors import UserError

DESCRIPTION = "Measure speed and memory of this library, from the root of its repository."
File = Positional[Path | None]


def cpu(file: File = None, /, *, json: bool = False, only: tuple[str, ...] = ()) -> None:
    """Measure training, scoring, entropies and memory beside transformers on this machine.

    Args:
        file: Write the results to this file too, as JSON.
        json: Print the results as JSON, and the tables to standard error; with a file, there.
        only: Names of the rows to measure, or scaling. Left out: all of them.
    """
    from benchmarks.cpu import main as run

    run(file, json, only)


def generate(file: File = None, /, *, json: bool = False, model: Path | None = None) -> None:
    """Measure cached generation beside transformers without a cache.

    Args:
        file: Write the results to this file too, as JSON.
        json: Print the results as JSON, and the tables to standard error; with a file, there.
        model: Folder of a trained BLT, to measure self-speculation on.
    """
    from benchmarks.generate import main as run

    run(file, json, model)


def attention(file: File = None, /, *, json: bool = False, turns: int = 10) -> None:
    """Measure attention of a training step on a CPU, in C++ and in PyTorch's operations.

    Args:
        file: Write the results to this file too, as JSON.
        json: Print the results as JSON, and the tables to standard error; with a file, there.
        turns: How many turns each takes; the fastest counts.
    """
    from benchmarks.attention import main as run

    run(file, json, turns)


def lora(file: File = None, /) -> None:
    """Measure the memory of training an adapter beside that of training all weights.

    Args:
        file: Write the results to this file too, as JSON.
    """
    from benchmarks.lora import main as run

    run(file)


def serve(
    file: File = None,
    /,
    *,
    json: bool = False,
    model: str = "pretrained",
    clients: int = 64,
    seconds: float = 60.0,
    prompt_bytes: int = 64,
    max_bytes: int = 256,
    batch: int = 16,
    chaos: bool = False,
) -> int:
    """Measure a server that many clients ask, beside the bare engine.

    Args:
        file: Write the results to this file too, as JSON.
        json: Print the results as JSON, and the tables to standard error; with a file, there.
        model: Folder of the model to serve, instead of the model inside the package.
        clients: How many ask at the same time.
        seconds: For so long.
        prompt_bytes: Of prompts, at most.
        max_bytes: Of continuations, at most.
        batch: How many texts are written at the same time.
        chaos: Some clients leave, read slowly, send too much or nonsense.
    """
    from blt.errors import needed

    needed("aiohttp", extra="bench")
    from benchmarks.serve import Load
    from benchmarks.serve import main as run

    return run(file, json, Load(model, clients, seconds, prompt_bytes, max_bytes, batch, chaos))


def gpu(
    out: Positional[Path],
    /,
    *,
    smoke: bool = False,
    quick: bool = False,
    only: tuple[str, ...] = (),
    seconds: float | None = None,
) -> None:
    """Measure parity with the CPU, training, decoding and memory on one CUDA device.

    Args:
        out: Folder to write gpu.json, gpu.md and profiles into.
        smoke: The same jobs on tiny shapes, on any machine.
        quick: Two minutes instead of eight: the most important jobs.
        only: Jobs of these names, or whose names begin so, such as "training 1b", in this order.
            Left out: all of them.
        seconds: For everything. Left out: 480, or 120 with --quick.
    """
    from benchmarks.gpu import main as run

    run(out, smoke, quick, only, seconds)


def convert(
    file: File = None,
    /,
    *,
    work: Path | None = None,
    shapes: tuple[Literal["1b", "7b"], ...] = (),
) -> None:
    """Measure what converting a checkpoint of a released shape takes.

    Args:
        file: Add the results to those in this file, as JSON.
        work: Folder for what is written on the way: 9 GB for the 1B, 21 GB for the 7B.
        shapes: Which released shapes. Left out: both.
    """
    from benchmarks.convert import main as run

    run(file, work, shapes)


def released(
    file: File = None,
    /,
    *,
    work: Path | None = None,
    only: tuple[Literal["bfloat16", "int8", "transformers"], ...] = (),
) -> None:
    """Measure the released 1B's shape: loading, first byte, speed and memory.

    Args:
        file: Add the results to those in this file, as JSON.
        work: Folder for what is written on the way, 18 GB.
        only: Which ways of running it. Left out: all of them.
    """
    from benchmarks.released import main as run

    run(file, work, only)


def harness(file: File = None, /, *, model: str = "pretrained") -> None:
    """Measure lm-evaluation-harness with blt beside its own hf.

    Args:
        file: Write the results to this file, as JSON.
        model: Folder of a BLT that the layout of transformers can hold: with an entropy model,
            without a lookup table, so not the one inside the package.
    """
    from benchmarks.harness import main as run

    run(file, model)


def loader(file: File = None, /) -> None:
    """Measure how fast a terabyte of prepared text opens, and how fast batches come.

    Args:
        file: Write the results to this file too, as JSON.
    """
    from benchmarks.loader import main as run

    run(file)


def loop(file: File = None, names: Positional[tuple[str, ...]] = (), /) -> None:
    """Measure what the training loop costs beside its bare steps.

    Args:
        file: Add the results to those in this file, as JSON.
        names: Only these shapes, such as "4 x 2048".
    """
    from benchmarks.loop import main as run

    run(file, names)


def plan_memory(file: File = None, /) -> None:
    """Compare the planner's peak memory with what training steps take.

    Args:
        file: Write the results to this file, as JSON.
    """
    from benchmarks.plan_memory import main as run

    run(file)


def prepare(file: File = None, /) -> None:
    """Measure blt prepare with entropies beside transformers' patcher.

    Args:
        file: Write the results to this file, as JSON.
    """
    from benchmarks.prepare import main as run

    run(file)


def utf8(
    file: File = None,
    /,
    *,
    json: bool = False,
    model: str = "pretrained",
    characters: int = 1_000_000,
    turns: int = 40,
) -> None:
    """Measure what whole characters cost, and count those that are none without.

    Args:
        file: Write the results to this file too, as JSON.
        json: Print the results as JSON, and the tables to standard error; with a file, there.
        model: Folder of a model, instead of the model inside the package.
        characters: How many to write with valid_utf8, and as many without; 0: none.
        turns: How many turns each of two engines takes, to compare their speed; 0: none.
    """
    from benchmarks.utf8 import main as run

    run(file, json, model, characters, turns)


Verb = Callable[..., int | None]


def checked(verb: Verb) -> Verb:
    """The same benchmark, which ends before it begins where its results could not be written."""

    @wraps(verb)
    def run(file: Path | None = None, /, *others: Any, **options: Any) -> int | None:
        check_output(file)
        return verb(file, *others, **options)

    return run


VERBS: dict[str, Verb] = {
    verb.__name__: verb if verb is gpu else checked(verb)  # gpu makes a folder of its own
    for verb in (
        cpu, attention, generate, serve, gpu, convert, released, harness, loader, loop, lora,
        plan_memory, prepare, utf8,
    )
}  # fmt: skip


def main(args: Sequence[str]) -> int:
    """Run one benchmark; returns the exit status: 2 for a user's mistake."""
    try:
        status = tyro.extras.subcommand_cli_from_dict(
            VERBS,
            prog="python -m benchmarks",
            description=DESCRIPTION,
            args=args or ["--help"],
            config=(tyro.conf.FlagCreatePairsOff, tyro.conf.DisallowNone),
        )
    except UserError as error:
        say(f"benchmarks: {error}", file=sys.stderr)
        return 2
    return status or 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
