"""Is a folder what was written into it? Models, runs and prepared text, file by file."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open

from blt.checkpoint import adapters
from blt.checkpoint.folders import CONFIG, TRAINER
from blt.checkpoint.layouts.meta import INSIDE
from blt.checkpoint.layouts.meta_config import PARAMS
from blt.checkpoint.open import open_layout
from blt.data.shards import faults_of_shards, is_prepared
from blt.errors import UserError
from blt.files import checksums
from blt.files.strict_json import read_object
from blt.files.tensors import Held, Tensors, check_finite
from blt.train.recipe import read_recipe
from blt.train.run import CHECKPOINT, METRICS, OLDER, RECIPE, TENSORS
from blt.train.state import TrainerValues

MODEL_FILES = ("*.json", "*.safetensors", "*.pth")


@dataclass
class Verdict:
    """What was found in a folder."""

    faults: list[str] = field(default_factory=list)  # each names its file, and the tensor
    files: int = 0  # that have a checksum
    bytes: int = 0  # of them
    unsigned: list[Path] = field(default_factory=list)  # files without a checksum

    @contextmanager
    def collecting(self) -> Iterator[None]:
        """Note what goes wrong inside; the same fault once."""
        try:
            yield
        except UserError as error:
            if str(error) not in self.faults:
                self.faults.append(str(error))

    def add_file(self, path: Path, fault: str | None) -> None:
        self.files += 1
        self.bytes += path.stat().st_size if path.is_file() else 0
        if fault is not None:
            self.faults.append(f"{path}: {fault}")


def verify(folder: Path) -> Verdict:
    """Read everything in a model folder, a run folder or a folder of ``blt prepare``.

    Raises:
        UserError: none of the three.
    """
    verdict = Verdict()
    if is_prepared(folder):
        for path, fault in faults_of_shards(folder):
            verdict.add_file(path, fault)
    elif (folder / RECIPE).is_file():
        _verify_run(folder, verdict)
    elif any((folder / name).is_file() for name in (CONFIG, PARAMS, adapters.CONFIG)):
        _verify_model(folder, verdict)
    else:
        what = "is no model folder, no run folder and no prepared text" if folder.exists() else ""
        raise UserError(f"{folder}: {what or 'no such folder'}")
    return verdict


def _verify_run(folder: Path, verdict: Verdict) -> None:
    with verdict.collecting():
        read_recipe(folder / RECIPE)
    metrics = folder / METRICS
    lines = metrics.read_bytes().splitlines(keepends=True) if metrics.is_file() else []
    for number, line in enumerate(lines, 1):
        if line.endswith(b"\n") and not _is_event(line):  # the last may be in work
            verdict.faults.append(f"{metrics}, line {number}: damaged")
    for checkpoint in (folder / CHECKPOINT, *sorted((folder / OLDER).glob("step-*"))):
        if checkpoint.is_dir():
            _verify_model(checkpoint, verdict)


def _is_event(line: bytes) -> bool:
    try:
        return isinstance(json.loads(line), dict)
    except ValueError:
        return False


def _verify_model(folder: Path, verdict: Verdict) -> None:
    for place in (folder, folder / INSIDE):
        _verify_files(place, verdict)
    known = {fault.split(":")[0] for fault in verdict.faults}  # files
    with verdict.collecting():
        _verify_tensors(_tensors_of(folder), verdict)
    if (folder / TRAINER).is_file() and str(folder / TRAINER) not in known:
        with verdict.collecting():
            TrainerValues.check(read_object(folder / TRAINER), str(folder / TRAINER))
        for path in sorted((folder / TENSORS).glob("*.safetensors")):
            _verify_state(path, verdict)


def _tensors_of(folder: Path) -> Tensors:
    """Of a model, or of an adapter."""
    if not adapters.is_adapter(folder):
        return open_layout(folder).tensors
    _, pairs = adapters.read(folder)
    parts = {
        layer + part: pair[i]
        for layer, pair in pairs.items()
        for i, part in enumerate((adapters.A, adapters.B))
    }
    return Held(parts, str(folder))


def _verify_files(folder: Path, verdict: Verdict) -> None:
    with verdict.collecting():
        noted = checksums.read(folder)
        for name in noted.sha256:
            verdict.add_file(folder / name, checksums.damage(folder, noted, name))
        there = {path for pattern in MODEL_FILES for path in folder.glob(pattern)}
        signed = {folder / name for name in (*noted.sha256, checksums.CHECKSUMS)}
        verdict.unsigned += sorted(there - signed)


def _verify_tensors(tensors: Tensors, verdict: Verdict) -> None:
    """Note tensors that hold a NaN or an infinite number."""
    for name, spec in tensors.specs.items():
        with verdict.collecting():
            for start, stop in spec.blocks():
                tensors.rows(name, start, stop)


def _verify_state(path: Path, verdict: Verdict) -> None:
    """Note what cannot be read of a trainer's tensors, which may be of any type."""
    try:
        with safe_open(path, "pt") as file:
            for name in file.keys():  # noqa: SIM118 (no mapping)
                with verdict.collecting():
                    check_finite(torch.atleast_1d(file.get_tensor(name)), str(path), name)
    except (SafetensorError, OSError) as error:
        verdict.faults.append(f"{path}: damaged ({error})")
