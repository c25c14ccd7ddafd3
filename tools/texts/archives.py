"""The files inside a package: wheels and zips, npm's and other tar files, Debian packages."""

from __future__ import annotations

import io
import re
import tarfile
import zipfile
from collections.abc import Iterator
from pathlib import Path

from blt.errors import UserError

AR = b"!<arch>\n"
AR_HEADER = 60  # bytes before each member of a Debian package: name 16, ..., size 10, end 2


def members(path: Path, wanted: re.Pattern[str]) -> Iterator[tuple[str, bytes]]:
    """Name and content of each file whose name ``wanted`` finds itself in, by name.

    Raises:
        UserError: damaged, or no kind of package that is known.
    """
    try:
        if path.suffix in (".whl", ".zip"):
            with zipfile.ZipFile(path) as packed:
                for name in sorted(packed.namelist()):
                    if wanted.search(name):
                        yield name, packed.read(name)
            return
        data = _of_debian(path) if path.suffix == ".deb" else path.read_bytes()
        found = {}
        with tarfile.open(fileobj=io.BytesIO(data)) as tar:
            for file in tar:  # in its order: going back would unpack all again
                if file.isfile() and wanted.search(file.name):
                    content = tar.extractfile(file)
                    assert content is not None  # it is a file
                    found[file.name] = content.read()
        yield from sorted(found.items())
    except (OSError, tarfile.TarError, zipfile.BadZipFile) as error:
        raise UserError(f"{path}: cannot be unpacked ({error}); remove it and run again") from None


def _of_debian(path: Path) -> bytes:
    """The tar file of what a Debian package installs."""
    data = path.read_bytes()
    at = len(AR)
    while data.startswith(AR) and at + AR_HEADER <= len(data):
        name, size = data[at : at + 16], int(data[at + 48 : at + 58])
        at += AR_HEADER
        if name.startswith(b"data.tar"):
            return data[at : at + size]
        at += size + size % 2
    raise UserError(f"{path}: no Debian package; remove it and run again")
