"""Tensors in safetensors files: model.safetensors, or shards with an index.

Everything in a header is checked against its file before a tensor is read. Rows are read from the
file as they are asked for, and written as they come, so that no tensor need fit into memory.
"""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from io import RawIOBase
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from blt.errors import UserError, require
from blt.files.strict_json import MAX_BYTES, RESTORE, parse_object, read_object
from blt.files.tensors import BLOCK_BYTES, Spec, Tensors, check_finite, unwritten

WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"
SHARD_BYTES = 5 * 10**9  # of a file; a larger tensor has one of its own
MAPPED_BYTES = 2**30  # from here on a tensor is mapped, not read: of a hash table few rows are used
DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "BOOL": torch.bool,  # lookup tables
}
WITH_INT8 = {**DTYPES, "I8": torch.int8}  # in our own layout, with scales: files/int8.py
BYTES = ("I8", "U8", "F8_E4M3", "F8_E5M2")
QUANTISED = (
    ". 8-bit numbers are weights only with their scales, which each program keeps in its own way: "
    "name the folder that they were made from, or let that program write it as bfloat16"
)
CODES = {dtype: code for code, dtype in WITH_INT8.items()}
SHARD_NAME = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9_.-]*\.safetensors")
PICKLES = (".bin", ".pt", ".pth", ".pkl", ".ckpt")


@dataclass(frozen=True)
class Entry:
    """Where a tensor lies."""

    path: Path
    offset: int  # of its first byte
    spec: Spec


class Stored(Tensors):
    """The tensors of a model folder; what is read of them is finite, but for mapped ones.

    Args:
        dtypes: that they may have, by their names in a file.

    Raises:
        UserError: no weights, damaged ones, an index that names what is not there; says which.
    """

    def __init__(self, folder: Path, dtypes: Mapping[str, torch.dtype] = DTYPES) -> None:
        self.folder = folder
        self.entries = _read_entries(folder, dtypes)
        self.specs = {name: entry.spec for name, entry in self.entries.items()}

    @property
    def files(self) -> list[Path]:
        """The files that the tensors lie in."""
        return sorted({entry.path for entry in self.entries.values()})

    def rows(self, name: str, start: int, stop: int) -> Tensor:
        entry = self.entries[name]
        out = torch.empty(
            (stop - start, *entry.spec.shape[1:]), dtype=entry.spec.dtype, device="cpu"
        )
        with entry.path.open("rb", buffering=0) as file:
            row_bytes = entry.spec.nbytes // max(1, entry.spec.shape[0])
            file.seek(entry.offset + start * row_bytes)
            _fill(file, out, entry.path)
        check_finite(out, str(entry.path), name)
        return out

    def read(self, name: str) -> Tensor:
        entry = self.entries[name]
        if entry.spec.nbytes < MAPPED_BYTES:
            return super().read(name)
        threading.Thread(target=_warm, args=(entry,), daemon=True).start()
        with _opened(entry.path) as file:
            return file.get_tensor(name)  # type: ignore[no-any-return]


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    """A safetensors file as the library opens it.

    Raises:
        UserError: it is damaged, or was changed while it was read.
    """
    try:
        with safe_open(path, "pt") as file:
            yield file
    except (SafetensorError, OSError, ValueError) as error:
        raise UserError(f"{path}: damaged ({error}); {RESTORE}") from None


def _warm(entry: Entry) -> None:
    """Read a mapped tensor once, into the page cache: row by row, a cold disk takes minutes."""
    scratch, rest = bytearray(BLOCK_BYTES // 8), entry.spec.nbytes
    with entry.path.open("rb", buffering=0) as file:
        file.seek(entry.offset)
        while rest > 0 and (count := file.readinto(scratch)):
            rest -= count


def _bytes_of(tensor: Tensor) -> memoryview:
    """The memory of a contiguous tensor."""
    return memoryview(tensor.flatten().view(torch.uint8).numpy().data)


def _fill(file: RawIOBase, out: Tensor, path: Path) -> None:
    rest = _bytes_of(out)
    while rest:
        count = file.readinto(rest)
        if not count:
            raise UserError(f"{path}: ended early; was it changed while it was read?")
        rest = rest[count:]


def _read_entries(folder: Path, dtypes: Mapping[str, torch.dtype]) -> dict[str, Entry]:
    index = folder / INDEX
    if (folder / WEIGHTS).is_file() or not index.is_file():
        return _file_entries(inside(folder, WEIGHTS), dtypes)
    weight_map = read_object(index).get("weight_map")
    require(isinstance(weight_map, dict), f"{index}: has no 'weight_map'; {RESTORE}")
    assert isinstance(weight_map, dict)
    entries: dict[str, Entry] = {}
    for name in dict.fromkeys(map(str, weight_map.values())):
        if not SHARD_NAME.fullmatch(name):
            raise UserError(f"{index}: {name!r} is not the plain name of a .safetensors file")
        for tensor, entry in _file_entries(inside(folder, name), dtypes).items():
            if tensor in entries:
                both = f"{entries[tensor].path.name} and {name}"
                raise UserError(f"{index}: tensor {tensor!r} is in both {both}; {RESTORE}")
            entries[tensor] = entry
    for tensor in sorted({*weight_map, *entries}):
        found = entries[tensor].path.name if tensor in entries else None
        if weight_map.get(tensor) != found:
            told = weight_map.get(tensor, "nowhere")
            raise UserError(f"{index}: tensor {tensor!r} is in {found}, not in {told}; {RESTORE}")
    return entries


def inside(folder: Path, name: str) -> Path:
    """A file of the folder; links may lead to other files of it, or of the hub's cache of it."""
    path = folder / name
    if not path.is_file():
        raise UserError(f"{path}: missing; {_what_else(folder)}")
    root = folder
    if folder.parent.name == "snapshots" and folder.parent.parent.name.startswith("models--"):
        root = folder.parent.parent  # the hub's cache keeps files in blobs/
    if not path.resolve().is_relative_to(root.resolve()):
        raise UserError(f"{path}: is a link out of its folder, and is not followed; copy the file")
    return path


def _what_else(folder: Path) -> str:
    """Why a file with weights is missing, and the way out."""
    pickles = sorted(path.name for path in folder.iterdir() if path.suffix in PICKLES)
    if not pickles:
        return "the folder is not a complete model"
    return (
        f"{pickles[0]} is a pickle, which can run code, and is not read; save the model as "
        "safetensors with what wrote it"
    )


def _file_entries(path: Path, dtypes: Mapping[str, torch.dtype]) -> dict[str, Entry]:
    """What a safetensors file holds."""
    data, found = _read_header(path)
    return {name: _entry(path, data, name, info, dtypes) for name, info in found.items()}


def spans(path: Path) -> dict[str, tuple[int, int]]:
    """First byte and end in a safetensors file of each tensor, of any type.

    Raises:
        UserError: a damaged file.
    """
    data, found = _read_header(path)
    offsets = {name: info["data_offsets"] for name, info in found.items()}
    return {name: (data + start, data + end) for name, (start, end) in offsets.items()}


def _read_header(path: Path) -> tuple[int, dict[str, Any]]:
    """Where data begins in a safetensors file, and what it holds: checked against its size."""
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if length > MAX_BYTES:
            raise UserError(f"{path}: damaged (a header of {length} bytes); {RESTORE}")
        header = file.read(length)
    with _opened(path):  # refuses gaps, overlaps, and offsets past the end
        pass
    found = parse_object(header, str(path))
    found.pop("__metadata__", None)
    return 8 + length, found


def _entry(
    path: Path, data: int, name: str, info: dict[str, Any], dtypes: Mapping[str, torch.dtype]
) -> Entry:
    dtype, shape = dtypes.get(info["dtype"]), tuple(info["shape"])
    if dtype is None or not shape:
        raise UserError(
            f"{path}: tensor {name!r} is {info['dtype']} of shape {shape}; weights are "
            f"{', '.join(dtypes)}, and have dimensions{QUANTISED if info['dtype'] in BYTES else ''}"
        )
    return Entry(path, data + info["data_offsets"][0], Spec(dtype, shape))


# --- writing -------------------------------------------------------------------------------------


def write(folder: Path, tensors: Tensors, shard_bytes: int = SHARD_BYTES) -> None:
    """Write all tensors into ``folder``: one file, or shards of about this size and an index.

    Raises:
        UnwrittenError: names the file.
    """
    shards = _shards(tensors, shard_bytes)
    if len(shards) == 1:
        _write_file(folder / WEIGHTS, tensors, shards[0])
        return
    weight_map: dict[str, str] = {}
    for number, names in enumerate(shards, 1):
        file = f"model-{number:05}-of-{len(shards):05}.safetensors"
        _write_file(folder / file, tensors, names)
        weight_map |= dict.fromkeys(names, file)
    total = sum(spec.nbytes for spec in tensors.specs.values())
    index = {"metadata": {"total_size": total}, "weight_map": weight_map}
    with unwritten(folder / INDEX):
        (folder / INDEX).write_text(json.dumps(index, indent=2) + "\n")


def _shards(tensors: Tensors, shard_bytes: int) -> list[list[str]]:
    shards: list[list[str]] = [[]]
    size = 0
    for name, spec in tensors.specs.items():
        if shards[-1] and size + spec.nbytes > shard_bytes:
            shards.append([])
            size = 0
        shards[-1].append(name)
        size += spec.nbytes
    return shards


def _write_file(path: Path, tensors: Tensors, names: Iterable[str]) -> None:
    # Wide ones first: each tensor then begins at a multiple of its own width.
    order = sorted(names, key=lambda name: -tensors.specs[name].dtype.itemsize)
    with unwritten(path), path.open("wb") as file:
        file.write(header(tensors, order))
        for name in order:
            for start, stop in tensors.specs[name].blocks():
                block = tensors.rows(name, start, stop).detach().contiguous().cpu()
                file.write(_bytes_of(block))


def header(tensors: Tensors, order: Sequence[str]) -> bytes:
    entries: dict[str, Any] = {"__metadata__": {"format": "pt"}}  # transformers asks for it
    offset = 0
    for name in order:
        spec = tensors.specs[name]
        entries[name] = {
            "dtype": CODES[spec.dtype],
            "shape": spec.shape,
            "data_offsets": (offset, offset + spec.nbytes),
        }
        offset += spec.nbytes
    text = json.dumps(entries).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text
