"""What a device has room for."""

from __future__ import annotations

import pytest
import torch

from blt.generate import Engine
from blt.machine import hardware
from blt.machine.hardware import cache_memory, kind_of, reading_bytes
from shapes import random_blt

CPU, GPU = torch.device("cpu"), torch.device("cuda")
GIB = 2**30


@pytest.mark.parametrize(("memory", "caches"), [(64 * GIB, 4 * GIB), (6 * GIB, 3 * GIB)])
def test_caches_on_a_cpu_are_4_gib_or_half_of_its_memory(
    monkeypatch: pytest.MonkeyPatch, memory: int, caches: int
) -> None:
    monkeypatch.setattr(hardware, "_physical_memory", lambda: memory)
    assert cache_memory(CPU) == caches
    assert Engine(random_blt(), max_batch=1).memory_budget == caches
    assert Engine(random_blt(), max_batch=1, memory_budget=5).memory_budget == 5


def test_the_memory_of_this_machine_is_found() -> None:
    assert hardware._physical_memory() > 2**28


def test_caches_on_a_gpu_are_a_share_of_what_is_free_beside_the_weights(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (50 * GIB, 80 * GIB))
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda device: 30 * GIB)
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda device: 20 * GIB)
    assert cache_memory(GPU) == int(0.8 * 60 * GIB)  # what PyTorch keeps for itself is free too
    assert cache_memory(GPU, 0.5) == int(0.4 * 60 * GIB)


def test_a_gpu_reads_more_at_once() -> None:
    assert reading_bytes(GPU) > reading_bytes(CPU)


@pytest.mark.parametrize(
    ("called", "kind"),
    [
        ("NVIDIA H100 80GB HBM3", "H100"),
        ("NVIDIA GeForce RTX 4090", "RTX4090"),
        ("NVIDIA T4", None),
    ],
)
def test_a_gpu_is_known_by_its_name(
    monkeypatch: pytest.MonkeyPatch, called: str, kind: str | None
) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: called)
    found = kind_of(GPU)
    assert (found and found.name) == kind
    assert kind_of(CPU) is None
