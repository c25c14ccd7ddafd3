"""Devices to plan for, and what the one here can do."""

from __future__ import annotations

import difflib
import os
import platform
import re
import resource
import sys
import time
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import torch

from blt.errors import UserError
from blt.texts.pieces import BATCH_BYTES


@dataclass(frozen=True)
class Hardware:
    """Some devices of one kind.

    Attributes:
        flops: dense bfloat16 peak of one, per second, as its maker gives it.
        memory: bytes of one.
        price: dollars per hour of one: an assumption, what clouds asked about in 2025.
    """

    name: str
    flops: float
    memory: float
    price: float
    count: int = 1
    shared_memory: bool = False  # a CPU


GB = 1e9
KINDS = {
    kind.name: kind
    for kind in (
        Hardware("H100", 989e12, 80 * GB, 2.5),
        Hardware("H200", 989e12, 141 * GB, 3.5),
        Hardware("B200", 2250e12, 180 * GB, 6.0),
        Hardware("A100", 312e12, 80 * GB, 1.5),
        Hardware("L40S", 362e12, 48 * GB, 1.0),
        Hardware("RTX4090", 165e12, 24 * GB, 0.5),
        # Two cores with AVX512-BF16, measured in products of 2048 x 2048.
        Hardware("laptop", 0.9e12, 16 * GB, 0.0, shared_memory=True),
    )
}


def find_hardware(text: str) -> Hardware:
    """``8xH100``, or ``H100`` for one.

    Raises:
        UserError: an unknown kind (names the nearest), or no devices.
    """
    match = re.fullmatch(r"(?:(\d+)x)?(\w+)", text.strip())
    by_name = {name.lower(): kind for name, kind in KINDS.items()}
    if match is None or match[2].lower() not in by_name:
        close = difflib.get_close_matches(match[2].lower() if match else text, by_name, 1, 0.4)
        hint = f"did you mean {by_name[close[0]].name}?" if close else "write it like 8xH100."
        raise UserError(f"--hardware {text!r}: {hint} Known kinds: {', '.join(KINDS)}")
    count = int(match[1] or 1)
    if count < 1:
        raise UserError(f"--hardware {text!r}: at least one device is needed")
    return replace(by_name[match[2].lower()], count=count)


CACHE_SHARE = 0.8  # of what is free on a GPU; prompts that are scored need the rest
CPU_CACHES = 4 * 2**30  # bytes


def cache_memory(device: torch.device, share: float = 1.0) -> int:
    """Bytes that the caches of texts may take on a device where the model's weights are by now.

    Args:
        share: of the device that this process has.

    Returns:
        on a GPU 0.8 of what is free; elsewhere 4 GiB, or half of the memory where that is less.
    """
    if device.type != "cuda":
        return min(CPU_CACHES, _physical_memory() // 2)
    free, _ = torch.cuda.mem_get_info(device)
    kept = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return int(CACHE_SHARE * share * (free + kept))


def _physical_memory() -> int:
    """Bytes of this machine."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def reading_bytes(device: torch.device) -> int:
    """Bytes of text that a model reads together: more on a GPU, which few leave idle."""
    return BATCH_BYTES if device.type == "cpu" else 4 * BATCH_BYTES


@cache
def peak_flops(device: torch.device, dtype: torch.dtype) -> float | None:
    """FLOP/s of matrix products: measured on a CPU, as its maker gives it of a GPU in bfloat16.

    Returns:
        None: a kind of device, or a precision on it, that is not known here.
    """
    if device.type == "cpu":
        return measured_flops(dtype)
    kind = kind_of(device)
    return kind.flops if kind is not None and dtype == torch.bfloat16 else None


def kind_of(device: torch.device) -> Hardware | None:
    """Which of the known kinds a GPU is; None: another one, or no GPU."""
    if device.type != "cuda":
        return None
    name = torch.cuda.get_device_name(device).replace(" ", "")
    return next((kind for kind in KINDS.values() if kind.name in name), None)


def device_name(device: torch.device) -> str:
    """What a GPU or the CPU is called, such as "NVIDIA H100 80GB HBM3"."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else processor()


def processor() -> str:
    """Name of the CPU."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def measured_flops(
    dtype: torch.dtype, size: int = 2048, repeats: int = 4, least: float = 0.0
) -> float:
    """FLOP/s of the fastest of a few products of square matrices on the CPU.

    Args:
        size: rows and columns.
        repeats: products that count, after one that prepares.
        least: FLOP/s; where the first two products both have fewer, no more are made.
    """
    a, b = (torch.ones(size, size, dtype=dtype) for _ in range(2))
    found: list[float] = []
    while len(found) <= repeats and not (len(found) == 2 and max(found) < least):
        start = time.perf_counter()
        torch.matmul(a, b)
        found.append(2 * size**3 / (time.perf_counter() - start))
    return max(found[1:])


def peak_memory(device: torch.device | str = "cpu") -> int:
    """Bytes that this process has held at most: of the GPU, or its resident set."""
    if torch.device(device).type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
