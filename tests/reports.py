"""A report of a training, as the loop makes them."""

from __future__ import annotations

from blt.train import Report

REPORT = Report(
    step=7,
    progress=0.25,
    seconds=60.0,
    seconds_left=185.0,
    bytes_seen=57344,
    flops=1e12,
    bytes_per_second=18_460.0,
    bits_per_byte=2.345,
    heldout_bits_per_byte=None,
    heldout_by_source=None,
    patch_size=4.51,
    lr=1e-3,
    grad_norm=0.7,
    skipped=0,
    waited=0.0,
    mfu=0.48,
    memory=1_510_000_000,
)
