"""A model folder goes to the Hugging Face hub, with a card, in one commit."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any

from blt.checkpoint.card import write_card
from blt.checkpoint.folders import CARD, INIT, TRAINER, Checkpoint
from blt.checkpoint.layouts.meta import INSIDE
from blt.checkpoint.open import layout_of, open_checkpoint
from blt.checkpoint.origin import published
from blt.errors import UserError, first_line, require
from blt.files import checksums
from blt.files.checksums import CHECKSUMS, Checksums
from blt.files.configs import to_dict
from blt.files.hub import HUB_ID, WANTED, failures, library, local_folder
from blt.files.stored import inside

Contents = dict[str, bytes | Path]  # of files, by their names on the hub


def push_to_hub(
    folder: str | os.PathLike[str],
    repo_id: str,
    *,
    private: bool = True,
    license: str | None = None,
    token: str | None = None,
) -> str:
    """Upload a model folder of any layout: its JSON and safetensors files, its chat
    template, and a card; of a training's checkpoint the model alone, not what the training goes on
    with.

    Args:
        folder: its README.md, if there is one, is the card; or else one is generated.
        repo_id: "owner/name"; made if it is not there.
        private: of a repository that is made.
        license: for the card.
        token: of the hub; None: the one that ``hf auth login`` has kept.

    Returns:
        where it is now.

    Raises:
        UserError: not a whole model, a link out of the folder, or the hub refuses.
    """
    source = local_folder(folder) if Path(folder).exists() else Path(folder)
    require(HUB_ID.fullmatch(repo_id) is not None, f"{repo_id!r} is not of the form owner/name")
    found = open_checkpoint(source)
    hub = library("to push a model")
    card: bytes | Path = source / CARD
    if not (source / CARD).is_file():
        card = write_card(found, layout_of(source), repo_id, license).encode()
    contents: Contents = {CARD: card, **_files(source), **_without_places(found)}
    contents |= _checksums(source, contents)
    operations = [hub.CommitOperationAdd(name, content) for name, content in contents.items()]
    api = hub.HfApi(token=token)
    try:
        api.create_repo(repo_id, private=private, exist_ok=True)
        api.create_commit(repo_id, operations, commit_message="Upload a model")
    except failures(hub) as error:
        reason = first_line(error)
        raise UserError(f"{repo_id}: the hub has not taken it ({reason})") from None
    return f"https://huggingface.co/{repo_id}"


def _without_places(found: Checkpoint) -> dict[str, bytes]:
    """Files instead of those that earlier versions wrote, which say where a model lay."""
    begun = found.files.get(INIT)
    if begun is None or (clean := published(begun, found.where)) == begun:
        return {}
    return {INIT: _json(clean)}


def _checksums(folder: Path, contents: Contents) -> Contents:
    """Checksums instead of those that tell of files that stay here, or change on the way."""
    found: Contents = {}
    for name in contents.keys() & {CHECKSUMS, f"{INSIDE}/{CHECKSUMS}"}:
        place = Path(name).parent
        noted, sha256 = checksums.read(folder / place), dict[str, str]()
        for own, digest in noted.sha256.items():
            content = contents.get((place / own).as_posix())
            if isinstance(content, bytes):
                sha256[own] = hashlib.sha256(content).hexdigest()
            elif content is not None:
                sha256[own] = digest
        if sha256 != noted.sha256:
            crc32 = {own: of for own, of in noted.crc32.items() if own in sha256}
            found[name] = _json(to_dict(Checksums(sha256, crc32)))
    return found


def _json(data: dict[str, Any]) -> bytes:
    return f"{json.dumps(data, indent=2)}\n".encode()


def _files(folder: Path) -> dict[str, Path]:
    """Files of the model by their names there: of the folder, and of Meta's entropy model."""
    found = [
        path.relative_to(folder).as_posix()
        for place in (folder, folder / INSIDE)
        for pattern in WANTED
        for path in sorted(place.glob(pattern))
        if path.name != TRAINER
    ]
    require(
        any(name.endswith(".safetensors") for name in found),
        f"{folder}: holds no safetensors; convert it first with `blt convert`",
    )
    return {name: inside(folder, name) for name in found}
