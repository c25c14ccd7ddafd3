"""Which precision matrix products take, and on which device."""

from __future__ import annotations

import logging
from functools import cache
from typing import Literal

import torch

from blt.errors import UserError
from blt.machine.hardware import measured_flops

Precision = Literal["auto", "float32", "bfloat16"]
PRODUCT = 768  # rows and columns: a few milliseconds


def choose_device(name: str, key: str = "train.device") -> torch.device:
    """``auto`` is a GPU where there is one; ``key`` is what a mistake is called.

    Raises:
        UserError: no such device here.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(1, dtype=torch.float32, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"{key}: {name!r} is not there ({reason}); try 'cpu'") from None
    return device


def choose_dtype(precision: Precision, device: torch.device) -> torch.dtype:
    """The dtype of matrix products; weights and optimiser stay in float32.

    Logs a warning where bfloat16 is asked for and the device is slower with it.
    """
    if precision == "auto":
        return torch.bfloat16 if bfloat16_is_faster(device) else torch.float32
    if precision == "float32":
        return torch.float32
    _warn_if_slower(device)
    return torch.bfloat16


def autocast(device: torch.device, dtype: torch.dtype) -> torch.autocast:
    """Matrix products in ``dtype`` inside a ``with`` block."""
    return torch.autocast(device.type, torch.bfloat16, enabled=dtype == torch.bfloat16)


@cache
def _warn_if_slower(device: torch.device) -> None:
    if not bfloat16_is_faster(device):
        logging.getLogger("blt").warning(
            "precision 'bfloat16' is slower than 'float32' on this %s, which only emulates it; "
            "'auto' takes the faster of the two",
            device.type,
        )


@cache
def bfloat16_is_faster(device: torch.device) -> bool:
    """Measured: many CPUs only emulate it."""
    if device.type != "cpu":
        return device.type != "cuda" or torch.cuda.is_bf16_supported(including_emulation=False)
    wide = measured_flops(torch.float32, PRODUCT, repeats=5)
    return measured_flops(torch.bfloat16, PRODUCT, repeats=5, least=wide / 10) > wide
