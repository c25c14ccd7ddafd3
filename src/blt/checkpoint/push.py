"""A model folder goes to the Hugging Face hub, with a card, in one commit."""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

from blt.checkpoint.card import write_card
from blt.checkpoint.folders import CARD, INIT, Checkpoint
from blt.checkpoint.open import layout_of, open_checkpoint
from blt.checkpoint.origin import published
from blt.errors import UserError, require
from blt.files import checksums
from blt.files.configs import to_dict
from blt.files.hub import HUB_ID, WANTED, failures, library, local_folder
from blt.files.stored import inside


def push_to_hub(
    folder: str | os.PathLike[str],
    repo_id: str,
    *,
    private: bool = True,
    license: str | None = None,
    token: str | None = None,
) -> str:
    """Upload a model folder of any layout: its JSON and safetensors files, its chat
    template, and a card.

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
    contents: dict[str, bytes | Path] = {CARD: card, **_files(source), **_without_places(found)}
    operations = [hub.CommitOperationAdd(name, content) for name, content in contents.items()]
    api = hub.HfApi(token=token)
    try:
        api.create_repo(repo_id, private=private, exist_ok=True)
        api.create_commit(repo_id, operations, commit_message="Upload a model")
    except failures(hub) as error:
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise UserError(f"{repo_id}: the hub has not taken it ({reason})") from None
    return f"https://huggingface.co/{repo_id}"


def _without_places(found: Checkpoint) -> dict[str, bytes]:
    """Files instead of those that earlier versions wrote, which say where a model lay."""
    begun = found.files.get(INIT)
    if begun is None or (clean := published(begun, found.where)) == begun:
        return {}
    replaced, noted = _json(clean), checksums.read(Path(found.where))
    if INIT not in noted.sha256:
        return {INIT: replaced}
    digests = noted.sha256 | {INIT: hashlib.sha256(replaced).hexdigest()}
    sums = to_dict(replace(noted, sha256=digests))
    return {INIT: replaced, checksums.CHECKSUMS: _json(sums)}


def _json(data: dict[str, Any]) -> bytes:
    return f"{json.dumps(data, indent=2)}\n".encode()


def _files(folder: Path) -> dict[str, Path]:
    """Files of the model by their names there: of the folder, and of Meta's entropy model."""
    found = [
        path.relative_to(folder).as_posix()
        for place in (folder, folder / "entropy_model")
        for pattern in WANTED
        for path in sorted(place.glob(pattern))
    ]
    require(
        any(name.endswith(".safetensors") for name in found),
        f"{folder}: holds no safetensors; convert it first with `blt convert`",
    )
    return {name: inside(folder, name) for name in found}
