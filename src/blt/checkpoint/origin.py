"""What others are told of the model that a training began from: never where it lies here."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from blt.checkpoint.folders import INIT
from blt.errors import UserError
from blt.files import checksums
from blt.files.hub import HUB_ID

PLACE = "entropy_model"  # the key of a change whose values are places


def shown(source: str | os.PathLike[str]) -> str:
    """A hub id or "pretrained" as it is; of a folder its last name, of a run's checkpoint the
    run's."""
    path, name = Path(source), os.fspath(source)
    if HUB_ID.fullmatch(name) and not path.exists():
        return name
    path = path if path.name not in ("", ".", "..") else path.resolve()
    return path.parent.name if path.name == "checkpoint" and path.parent.name else path.name


def fingerprint(folder: Path) -> str | None:
    """SHA-256 of the weights in a model folder, whatever it is called; of several files, of theirs.
    None: it has no such files."""
    noted = checksums.read(folder).sha256
    files = sorted((*folder.glob("*.safetensors"), *folder.glob("*.pth")))
    found = [noted.get(path.name) or checksums.digest(path) for path in files]
    if len(found) < 2:
        return found[0] if found else None
    return hashlib.sha256(" ".join(found).encode()).hexdigest()


def published(begun: Mapping[str, Any], where: str) -> dict[str, Any]:
    """What the init.json of a model folder says, without the places that earlier versions wrote.

    Raises:
        UserError: damaged; names the file.
    """
    try:
        changed = [
            {**one, "was": _shown(one["was"]), "is": _shown(one["is"])}
            if one["key"] == PLACE
            else one
            for one in begun["changed"]
        ]
        return {**begun, "init": shown(begun["init"]), "changed": changed}
    except (KeyError, TypeError):
        raise UserError(damaged(where)) from None


def damaged(where: str) -> str:
    """Of the init.json of a model folder."""
    return f"{where}/{INIT}: is not as `blt train` wrote it; restore or delete it"


def _shown(value: Any) -> Any:
    return shown(value) if isinstance(value, str) else value
