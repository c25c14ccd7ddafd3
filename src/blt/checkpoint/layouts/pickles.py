"""Meta's consolidated.pth: the one kind of pickle that is read, with nothing in it ever run."""

from __future__ import annotations

import pickle
import zipfile
from pathlib import Path

import torch
from torch import Tensor

from blt.errors import UserError, first_line
from blt.files.stored import DTYPES
from blt.files.tensors import Held

MAX_PICKLE = 16 * 2**20  # names and shapes alone; what tensors hold lies beside it


def read_pth(path: Path) -> Held:
    """Tensors of ``{"model": {name: tensor}}``, mapped into memory.

    Raises:
        UserError: not what ``torch.save`` writes, anything but tensors in it, or a damaged file.
    """
    _check_archive(path)
    try:
        data = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except pickle.UnpicklingError:
        raise UserError(
            f"{path}: holds more than tensors, and may run code; nothing of it was run. Ask for "
            "safetensors"
        ) from None
    except Exception as error:  # a damaged pickle raises whatever its instructions run into
        raise UserError(f"{path}: damaged ({first_line(error)})") from None
    state = data.get("model") if isinstance(data, dict) else None
    if not isinstance(state, dict):
        raise UserError(f"{path}: has no 'model' with tensors in it; is it Meta's checkpoint?")
    for name, tensor in state.items():
        if not isinstance(name, str) or not _is_plain(tensor):
            raise UserError(f"{path}: {name!r} is not a plain tensor of weights")
    return Held(state, str(path))


def _is_plain(value: object) -> bool:
    return (
        isinstance(value, Tensor)
        and value.layout is torch.strided
        and value.dtype in DTYPES.values()
        and value.dim() > 0
        and value.is_contiguous()  # no huge shape over a few bytes
    )


def _check_archive(path: Path) -> None:
    """PyTorch's archives are zip files without compression: refuse all else before it is read."""
    try:
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
    except (zipfile.BadZipFile, OSError, ValueError) as error:
        raise UserError(
            f"{path}: not an archive of torch.save ({error}); older pickles are not read"
        ) from None
    for entry in entries:
        if entry.compress_type != zipfile.ZIP_STORED:
            raise UserError(f"{path}: {entry.filename!r} is compressed, and is not read")
        if entry.filename.endswith(".pkl") and entry.file_size > MAX_PICKLE:
            raise UserError(f"{path}: {entry.filename!r} has {entry.file_size} bytes: too many")
