"""Which precision matrix products take, and on which device."""

from __future__ import annotations

import logging
import time
from functools import cache
from typing import Literal

import torch

from blt.errors import UserError

Precision = Literal["auto", "float32", "bfloat16"]


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
    wide = _matmul_seconds(torch.float32)
    return _matmul_seconds(torch.bfloat16, enough=10 * wide) < wide


def _matmul_seconds(dtype: torch.dtype, enough: float = float("inf")) -> float:
    """Best of a few, so that other work on the machine does not decide; of two that are so slow."""
    a, b = torch.ones(1024, 512, dtype=dtype), torch.ones(512, 1024, dtype=dtype)
    times: list[float] = []
    while len(times) < 6 and not (len(times) == 2 and min(times) > enough):
        start = time.perf_counter()
        a @ b
        times.append(time.perf_counter() - start)
    return min(times)
