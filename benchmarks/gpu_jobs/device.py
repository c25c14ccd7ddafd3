"""What the device itself can do, to which the other numbers compare."""

from __future__ import annotations

import torch

from benchmarks.gpu_jobs.place import Found, Place

# Bytes per second of memory, as the makers give them, by what a device's name contains.
BANDWIDTHS = {
    "H100 PCIe": 2.0e12,
    "H100 NVL": 3.9e12,
    "H100": 3.35e12,
    "H200": 4.8e12,
    "B200": 8.0e12,
    "A100": 2.04e12,
    "L40S": 0.864e12,
}


def peak_bandwidth(device: torch.device) -> float | None:
    """Bytes per second of a GPU's memory; None: not known here."""
    if device.type != "cuda":
        return None
    name = torch.cuda.get_device_name(device)
    return next((speed for kind, speed in BANDWIDTHS.items() if kind in name), None)


def device(place: Place) -> Found:
    """Speed of bfloat16 products and of memory, and what a launch costs the host."""
    size = place.sized(8192, 64)
    # Random numbers: products of constants take less power, and are faster than any that matter.
    a, b = (torch.randn(size, size, device=place.device, dtype=torch.bfloat16) for _ in range(2))
    yield {"product_flops": 2 * size**3 / place.seconds(lambda: a @ b)}
    data = torch.ones(place.sized(2**31, 2**12), device=place.device, dtype=torch.bfloat16)
    yield {"memory_bytes_per_second": data.nbytes / place.seconds(data.max)}
    little = torch.ones(1, device=place.device)
    yield {"launch_seconds": place.seconds(lambda: little.add_(1))}
