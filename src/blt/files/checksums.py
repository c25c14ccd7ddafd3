"""checksums.json of a folder: SHA-256 of its files, so that what is read is what was saved.

Of each tensor there is a CRC-32 too, which costs little and tells where in a file the damage is.
Folders without one, of older versions and of other programs, are read as they are.
"""

from __future__ import annotations

import hashlib
import re
import zlib
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from blt.errors import UserError, require
from blt.files import durable
from blt.files.configs import from_dict, to_dict
from blt.files.stored import spans
from blt.files.strict_json import read_object

CHECKSUMS = "checksums.json"
CHECKED_BYTES = 2**30  # of a file: a second's work; longer ones are left to `blt verify`
BLOCK_BYTES = 2**20
SHA256 = re.compile("[0-9a-f]{64}")
CRC32 = re.compile("[0-9a-f]{8}")


@dataclass(frozen=True)
class Checksums:
    """Checksums of the files of a folder, by their names in it."""

    sha256: dict[str, str] = field(default_factory=dict)
    crc32: dict[str, dict[str, str]] = field(default_factory=dict)  # file → tensor → of its bytes

    def __post_init__(self) -> None:
        tensors = [value for values in self.crc32.values() for value in values.values()]
        require(all(map(SHA256.fullmatch, self.sha256.values())), "sha256: not of 64 digits")
        require(all(map(CRC32.fullmatch, tensors)), "crc32: not of 8 digits")
        for name in (*self.sha256, *self.crc32):
            parts = Path(name).parts
            plain = parts and ".." not in parts and not Path(name).is_absolute()
            require(bool(plain), f"{name!r} is no file of the folder")


def digest(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read(folder: Path) -> Checksums:
    """Those of a folder; empty where nobody has written any.

    Raises:
        UserError: damaged; names the file.
    """
    path = folder / CHECKSUMS
    if not path.is_file():
        return Checksums()
    return from_dict(Checksums, read_object(path, f"restore it, or delete {path}"), str(path))


def record(folder: Path, names: Iterable[str] | None = None) -> None:
    """Note what files of a folder hold now, beside what is noted already.

    Args:
        names: in the folder; None: the files in it, but not in folders within.
    """
    if names is None:
        names = sorted(path.name for path in folder.iterdir() if path.is_file())
    names, old = [name for name in names if name != CHECKSUMS], read(folder)
    with ThreadPoolExecutor() as pool:  # hashing leaves the interpreter to others
        digests = list(pool.map(digest, (folder / name for name in names)))
        weights = [name for name in names if name.endswith(".safetensors")]
        tensors = list(pool.map(_tensors, (folder / name for name in weights)))
    sha256 = old.sha256 | dict(zip(names, digests, strict=True))
    _write(folder, Checksums(sha256, old.crc32 | dict(zip(weights, tensors, strict=True))))


def forget(folder: Path, prefix: str) -> None:
    """Before files are taken away or changed: drop what is noted of names with this beginning."""
    old = read(folder)
    if any(name.startswith(prefix) for name in old.sha256):
        kept = {name: d for name, d in old.sha256.items() if not name.startswith(prefix)}
        _write(folder, Checksums(kept, {name: t for name, t in old.crc32.items() if name in kept}))


@contextmanager
def changing(folder: Path, name: str) -> Iterator[None]:
    """Around the change of a file; a kill within leaves it without a checksum, not with a wrong
    one. Where nothing is noted of the folder, nothing is afterwards."""
    noted = bool(read(folder).sha256)
    forget(folder, name)
    yield
    if noted:
        record(folder, [name])


def check(folder: Path, names: Iterable[str] | None = None, but: str = "") -> None:
    """Refuse files that are not what was saved; those above CHECKED_BYTES are taken as they are.

    Args:
        names: of files, of which those with a checksum are checked; None: all but those in folders
            within.
        but: one that nobody is going to read.

    Raises:
        UserError: names the file, and the tensor where the damage is; and the way out.
    """
    noted = read(folder)
    if names is None:
        names = [name for name in noted.sha256 if "/" not in name and name != but]
    names = [name for name in names if name in noted.sha256]
    with ThreadPoolExecutor() as pool:
        found = pool.map(lambda name: damage(folder, noted, name, CHECKED_BYTES), names)
        for name, what in zip(names, found, strict=True):
            if what is not None:
                raise UserError(f"{folder / name}: {what}; {way_out(folder)}")


def way_out(folder: Path) -> str:
    """Out of a checksum that does not hold."""
    return f"restore it, or delete {folder / CHECKSUMS} to use the folder as it is"


def damage(folder: Path, noted: Checksums, name: str, most: float = float("inf")) -> str | None:
    """What is wrong with a file, in a few words; None: nothing, or it is longer than ``most``."""
    path = folder / name
    if not path.is_file():
        return f"missing, though {CHECKSUMS} has it"
    if path.stat().st_size > most or digest(path) == noted.sha256[name]:
        return None
    where = _where(path, noted.crc32.get(name, {}))
    return f"damaged, or changed since it was saved (another SHA-256{where})"


def _where(path: Path, noted: dict[str, str]) -> str:
    """The tensors that differ, if the file can still be read."""
    try:
        found = _tensors(path) if noted else {}
    except UserError:
        return ""
    differ = [repr(name) for name in noted if found.get(name) != noted[name]]
    more = f" and {len(differ) - 3} more" if len(differ) > 3 else ""
    return f"; in tensor {', '.join(differ[:3])}{more}" if differ else ""


def _tensors(path: Path) -> dict[str, str]:
    """CRC-32 of each tensor of a safetensors file."""
    found = {}
    with path.open("rb") as file:
        for name, (start, end) in spans(path).items():
            file.seek(start)
            value, rest = 0, end - start
            while rest and (block := file.read(min(rest, BLOCK_BYTES))):
                value, rest = zlib.crc32(block, value), rest - len(block)
            found[name] = f"{value:08x}"
    return found


def _write(folder: Path, checksums: Checksums) -> None:
    durable.write_json(folder / CHECKSUMS, to_dict(checksums))
