"""The Hugging Face hub: models by their ids."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

from blt.errors import UserError, how_to_install

HUB_ID = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*")
WANTED = ["*.json", "*.safetensors"]  # nothing that could be run


def local_folder(source: str | os.PathLike[str]) -> Path:
    """The folder itself, or a copy of the hub's for an id ("owner/name") that is no folder here.

    Raises:
        UserError: no such model on the hub, or the hub cannot be reached.
    """
    folder, text = Path(source), os.fspath(source)
    if folder.exists() or not HUB_ID.fullmatch(text):
        return folder
    hub = library(f"{text}: no such folder here; to look on the hub")
    try:
        return Path(hub.snapshot_download(text, allow_patterns=WANTED))
    except (hub.errors.HfHubHTTPError, hub.errors.HFValidationError, OSError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"{text}: no such folder here, and not from the hub ({reason})") from None


def library(why: str) -> Any:
    """``huggingface_hub``; ``why`` it is needed opens the message where it is not installed."""
    try:
        import huggingface_hub
    except ImportError:
        raise UserError(f"{why}, {how_to_install('convert')}") from None
    return huggingface_hub
