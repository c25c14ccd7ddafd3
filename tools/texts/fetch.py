"""Packages at pinned versions, fetched by pip, npm and apt-get as they are set up here."""

from __future__ import annotations

import hashlib
import re
import subprocess
import sys
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from blt.errors import UserError

LIST = Path(__file__).parent / "sources.toml"
SECONDS = 600  # for one package
# the same files on every machine, whatever its Python: none of their code is run
PLATFORMS = ("any", "manylinux2014_x86_64", "manylinux1_x86_64")


@dataclass(frozen=True)
class Source:
    """A package, what in it is text, and under which licence."""

    name: str
    client: str  # pip, npm or apt
    package: str
    version: str
    file: str
    sha256: str
    licence: str
    licence_file: str  # in the package: what states the licence
    attribution: str
    files: Sequence[dict[str, str]]  # pattern with a group "language", or language; reader
    skip: Sequence[str] = field(default=())  # tags of no language

    def readers(self) -> list[tuple[re.Pattern[str], str | None, str]]:
        """Which files, their language if no name tells it, and who reads them."""
        return [(re.compile(of["pattern"]), of.get("language"), of["reader"]) for of in self.files]


def sources(path: Path = LIST) -> list[Source]:
    """All sources, in the order in which the first of two equal lines is kept."""
    with path.open("rb") as file:
        return [Source(name=name, **facts) for name, facts in tomllib.load(file).items()]


def command(source: Source) -> list[str]:
    """What fetches a package into the folder where it runs, and runs none of its code."""
    if source.client == "pip":
        platforms = [word for platform in PLATFORMS for word in ("--platform", platform)]
        return [
            *(sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"),
            *("--only-binary=:all:", "--ignore-requires-python", "--python-version", "3.14"),
            *platforms,
            *("--dest", ".", f"{source.package}=={source.version}"),
        ]
    if source.client == "npm":
        return [
            *("npm", "pack", "--silent", "--ignore-scripts", "--pack-destination", "."),
            f"{source.package}@{source.version}",
        ]
    return ["apt-get", "download", f"{source.package}={source.version}"]


def fetch(source: Source, folder: Path) -> Path:
    """The package's file, downloaded unless it is there.

    Raises:
        UserError: it cannot be had, or is not the one that was pinned.
    """
    path = folder / source.file
    folder.mkdir(parents=True, exist_ok=True)
    if not path.exists():
        _download(source, folder)
    found = hashlib.sha256(path.read_bytes()).hexdigest()
    if found != source.sha256:
        raise UserError(
            f"{path}: sha256 is {found}, and the list pins {source.sha256}; remove the file to "
            "fetch it anew, or pin another version"
        )
    return path


def _download(source: Source, folder: Path) -> None:
    what = f"{source.package} {source.version} by {source.client}"
    try:
        done = subprocess.run(
            command(source), cwd=folder, timeout=SECONDS, capture_output=True, text=True
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise UserError(f"{source.name}: cannot fetch {what} ({error})") from None
    if done.returncode or not (folder / source.file).exists():
        last = (done.stderr.strip() or done.stdout.strip() or "no message").splitlines()[-1]
        raise UserError(
            f"{source.name}: cannot fetch {what}: {last}; expected {folder / source.file}; where a "
            "version is gone, put another in the list"
        )
