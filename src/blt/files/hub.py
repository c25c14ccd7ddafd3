"""The Hugging Face hub: models by their ids."""

from __future__ import annotations

import logging
import os
import re
from pathlib import Path
from typing import Any

from blt.errors import UserError, first_line, needed

log = logging.getLogger("blt")
MODELS = ("config.json", "adapter_config.json")  # one of these makes a folder a model's
HUB_ID = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*")
WANTED = ["*.json", "*.safetensors", "chat_template.jinja"]  # this alone is run, in a sandbox


def local_folder(source: str | os.PathLike[str]) -> Path:
    """The folder itself, or a copy of the hub's for an id ("owner/name") that is no folder here.

    Of the folder of a run its model's is meant, and that is said.

    Raises:
        UserError: no such model on the hub, or the hub cannot be reached.
    """
    folder, text = Path(source), os.fspath(source)
    inside = folder / "checkpoint"
    if not _is_model(folder) and _is_model(inside):
        log.warning("%s: is a run; its model is taken, %s", folder, inside)
        return inside
    if folder.exists() or not HUB_ID.fullmatch(text):
        return folder
    hub = library(f"{text}: no such folder here; to look on the hub")
    try:
        return Path(hub.snapshot_download(text, allow_patterns=WANTED))
    except (hub.errors.HFValidationError, *failures(hub)) as error:
        reason = first_line(error)
        raise UserError(f"{text}: no such folder here, and not from the hub ({reason})") from None


def _is_model(folder: Path) -> bool:
    return any((folder / name).is_file() for name in MODELS)


def failures(hub: Any) -> tuple[type[Exception], ...]:
    """What the hub, or a network that is not there, ends in."""
    httpx = needed("httpx", "convert")  # the hub's own
    return (hub.errors.HfHubHTTPError, httpx.HTTPError, OSError)


def library(why: str) -> Any:
    """``huggingface_hub``; ``why`` it is needed opens the message where it is not installed."""
    return needed("huggingface_hub", "convert", why)
