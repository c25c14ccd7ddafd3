"""Which precision matrix products take, and on which device."""

from __future__ import annotations

import logging
from functools import cache
from typing import Literal

import torch

from blt.errors import UserError, first_line
from blt.machine.hardware import measured_flops

Precision = Literal["auto", "float32", "bfloat16"]
DEVICES = ("cpu", "cuda", "mps", "xpu")  # what PyTorch computes on, by the first part of a name
PRODUCT = 768  # rows and columns: a few milliseconds
_settled: dict[str, bool] = {}  # by kind of device, whether bfloat16 is faster there


def choose_device(name: str | torch.device, key: str = "train.device") -> torch.device:
    """The device that a user has asked for, tried out.

    Args:
        name: ``auto`` for a GPU where there is one, ``cpu``, ``cuda``, ``cuda:1``.
        key: the option or field, for the message about a mistake.

    Raises:
        UserError: no such device here.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if str(name).partition(":")[0] not in DEVICES:
        known = f"known are {', '.join(DEVICES)}"
        raise UserError(f"{key}: {str(name)!r} is not there ({known}); try 'auto' or 'cpu'")
    try:
        device = torch.device(name)
        torch.empty(1, dtype=torch.float32, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = first_line(error)[:120]
        message = f"{key}: {str(name)!r} is not there ({reason}); try 'auto' or 'cpu'"
        raise UserError(message) from None
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


def reading_dtype(device: torch.device, precision: Precision = "auto") -> torch.dtype:
    """The dtype of matrix products where a model only reads: scores, entropies, patch sizes.

    ``auto`` is bfloat16 on a GPU that has it, and float32 on a CPU, also on one whose bfloat16 is
    fast: scores of different CPUs stay comparable.
    """
    if precision == "auto" and device.type == "cpu":
        return torch.float32
    return choose_dtype(precision, device)


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


def bfloat16_is_faster(device: torch.device) -> bool:
    """Measured once: many CPUs only emulate it. Or as :func:`settle_bfloat16` was told."""
    if device.type not in _settled:
        settle_bfloat16(device, _measured_faster(device))
    return _settled[device.type]


def settled_bfloat16(device: torch.device) -> bool | None:
    """What :func:`bfloat16_is_faster` says, if it was asked before; None: it was not."""
    return _settled.get(device.type)


def settle_bfloat16(device: torch.device, faster: bool) -> None:
    """From now on ``auto`` takes this: processes that train together must take the same."""
    _settled[device.type] = faster


def _measured_faster(device: torch.device) -> bool:
    if device.type != "cpu":
        return device.type != "cuda" or torch.cuda.is_bf16_supported(including_emulation=False)
    wide = measured_flops(torch.float32, PRODUCT, repeats=5)
    return measured_flops(torch.bfloat16, PRODUCT, repeats=5, least=wide / 10) > wide
