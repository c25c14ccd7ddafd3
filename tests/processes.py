"""Trainings in processes of their own, one or several together.

They are forked from a server that has imported PyTorch and nothing else has happened in: to import
it anew takes longer than these trainings do.
"""

from __future__ import annotations

import multiprocessing
import os
import socket
import sys
from collections.abc import Callable
from dataclasses import replace
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import torch

from blt import cli
from blt.train import Recipe, write_recipe

Verb = Callable[[list[str]], int]  # from arguments of a command line to its exit status

_forked = multiprocessing.get_context("forkserver")
_forked.set_forkserver_preload(
    ["blt.train", "blt.byteify", "blt.cli.train", "torch.distributed", "torch._dynamo"]
)


def write(recipe: Recipe, path: Path, **changes: Any) -> Path:
    write_recipe(path, replace(recipe, train=replace(recipe.train, **changes)))
    return path


def torchrun(recipe: Path, run: Path, processes: int) -> list[str]:
    """The command that users give."""
    launcher = ["torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    blt = ["blt", "train", str(recipe), "--run", str(run)]
    return [sys.executable, "-m", *launcher, "-m", "--", *blt]


def start(
    recipe: Path, run: Path, *more: str, processes: int = 1, verb: Verb = cli.main
) -> list[BaseProcess]:
    """``blt train``, as many times as ``torchrun`` would; what it says goes beside the run."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    started: list[BaseProcess] = []
    for rank in range(processes):
        world = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": processes, "MASTER_PORT": port}
        env = {name: str(value) for name, value in world.items()} | {"MASTER_ADDR": "127.0.0.1"}
        arguments = ["train", str(recipe), "--run", str(run), *more]
        said = run.with_name(f"{run.name}.{rank}.log")
        call = (verb, arguments, env if processes > 1 else {}, said)
        started.append(_forked.Process(target=_run, args=call))
        started[-1].start()
    return started


def train(recipe: Path, run: Path, *more: str, processes: int = 1, verb: Verb = cli.main) -> None:
    """To the end, which must be a good one."""
    for rank, process in enumerate(start(recipe, run, *more, processes=processes, verb=verb)):
        process.join()
        said = run.with_name(f"{run.name}.{rank}.log").read_text()
        assert process.exitcode == 0, said


def _run(verb: Verb, arguments: list[str], env: dict[str, str], said: Path) -> None:
    os.environ.update(env)
    # One thread each: how sums are divided among threads decides their last bits.
    torch.set_num_threads(1)
    with said.open("w") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    sys.exit(verb(arguments))
