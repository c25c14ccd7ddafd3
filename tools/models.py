"""Models to compare: inside the package, or in a folder."""

from __future__ import annotations

import hashlib
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path

from blt.checkpoint.folders import PATCHING
from blt.checkpoint.pretrained import read_patching, shipped
from blt.errors import UserError, require
from blt.files.checksums import BLOCK_BYTES
from blt.files.hub import local_folder
from blt.lm import BLT, ByteLM, load
from blt.patching import Patcher

PACKAGED = ("blt", "entropy_model")  # names of folders inside the package
CONTEXT = {"blt": 2048, "byte": 1024}  # bytes of a piece: those that each kind is trained with
RUN = "checkpoint"  # what the model's folder in a run is called


@dataclass(frozen=True)
class Model:
    """A model that is compared."""

    label: str
    sha256: str  # of its weights, as they are stored
    lm: BLT | ByteLM
    patcher: Patcher

    @property
    def context(self) -> int:
        """Bytes of the pieces that it reads."""
        return CONTEXT[self.lm.kind]

    @property
    def about(self) -> dict[str, str]:
        """What a line says of it: the same weights may cut by another θ."""
        return {"model": self.label, "sha256": self.sha256, "rule": self.patcher.describe()}


def open_model(given: str, device: str = "cpu") -> Model:
    """A model by its name in the package, or its folder; ``LABEL=`` may stand before.

    Without a label it is called as its folder, or as its run.

    Raises:
        UserError: no model there, or one over tokens, or without files to know its weights by.
    """
    label, named, place = given.rpartition("=")
    with _folder(place) as folder:
        lm = load(folder, device).float()  # what ships is stored in few bits
        if not isinstance(lm, BLT | ByteLM):
            raise UserError(f"{place}: a {lm.kind} model has no patches; name a BLT or byte model")
        own = lm.patcher if isinstance(lm, BLT) else Patcher(read_patching(folder / PATCHING), lm)
        return Model(label if named else _label(place), weights_digest(folder), lm, own)


def weights_digest(folder: Path) -> str:
    """SHA-256 of a folder's weights: of one file that of the file.

    Raises:
        UserError: there are none; that of nothing would be the same for all models.
    """
    found, files = hashlib.sha256(), sorted(folder.glob("*.safetensors"))
    way_out = f"convert it with `blt convert`, or name one of {', '.join(PACKAGED)}"
    require(bool(files), f"{folder}: holds no safetensors to know its weights by; {way_out}")
    for path in files:
        with path.open("rb") as file:
            while block := file.read(BLOCK_BYTES):
                found.update(block)
    return found.hexdigest()


def _folder(place: str) -> AbstractContextManager[Path]:
    """Where its files are: of a run, or of the hub, the model's own folder."""
    return shipped(place) if place in PACKAGED else nullcontext(local_folder(place))


def _label(place: str) -> str:
    path = Path(place).resolve() if place not in PACKAGED else Path(place)
    return path.parent.name if path.name == RUN else path.name
