"""Steps of a few rows on a CPU in C++ (:mod:`blt.machine.cpp`)."""

from __future__ import annotations

import ctypes
from functools import cache
from pathlib import Path
from typing import Any

from blt.machine.cpp import compiled

SOURCE = Path(__file__).with_name("steps.cpp")


def _fields(**kinds: str) -> list[tuple[str, Any]]:
    """Fields of a struct: p pointer, i int64, f float, w matrix."""
    types = {"p": ctypes.c_void_p, "i": ctypes.c_int64, "f": ctypes.c_float}
    return [(name, types.get(kind) or Weight) for name, kind in kinds.items()]


class Weight(ctypes.Structure):
    """A matrix [out, in]; see the C++ for all of these."""

    _fields_ = _fields(data="p", scale="p", kind="i", out="i", in_="i")


class Layer(ctypes.Structure):
    _fields_ = _fields(
        attention_norm="p",
        ff_norm="p",
        cross_norm="p",
        qkv_bias="p",
        q_norm="p",
        k_norm="p",
        qkv="w",
        attention_out="w",
        gate_up="w",
        down="w",
        cross_query="w",
        cross_out="w",
    )


class Embedding(ctypes.Structure):
    _fields_ = _fields(
        bytes="p", ngrams="p", sizes="p", primes="p", count="i", functions="i", rows="i", reach="i"
    )


class Stack(ctypes.Structure):
    _fields_ = _fields(
        layers="p",
        frequencies="p",
        embedding="p",
        projection="p",
        norm="p",
        head="w",
        depth="i",
        dim="i",
        heads="i",
        kv_heads="i",
        head_dim="i",
        cross_heads="i",
        window="i",
        norm_width="i",
        norms_after="i",
        eps="f",
    )


class Job(ctypes.Structure):
    _fields_ = _fields(
        rows="i",
        input="p",
        each="i",
        x="p",
        logits="p",
        entropies="p",
        positions="p",
        at="p",
        starts="p",
        text="p",
        caches="p",
        capacity="p",
        first_layer="i",
        cache_kind="i",
        seen="p",
        seen_stride="i",
        seen_ids="p",
        slices="i",
    )


class Pooling(ctypes.Structure):
    _fields_ = _fields(
        query_norm="p",
        key_value_norm="p",
        projection="w",
        query="w",
        key_value="w",
        out="w",
        dim="i",
        heads="i",
        slices="i",
        eps="f",
    )


class Crossing(ctypes.Structure):
    _fields_ = _fields(norm="p", key_value="w")


class Crossings(ctypes.Structure):
    _fields_ = _fields(layers="p", projection="w", count="i", dim="i", slices="i", eps="f")


@cache
def library() -> ctypes.CDLL | None:
    """The compiled steps; None where they are turned off or cannot be compiled."""
    loaded = compiled(SOURCE, "generation runs in PyTorch, at a fourth of the speed or less")
    if loaded is not None:
        for name in ("run", "pool", "see", "product"):
            getattr(loaded, f"blt_{name}").restype = None
    return loaded
