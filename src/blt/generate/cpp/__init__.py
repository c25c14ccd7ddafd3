"""Steps of a few rows on a CPU in C++, compiled by the machine's own compiler on first use.

Where there is no compiler, or on another device, PyTorch does the same work, more slowly.
``BLT_NATIVE=0`` turns it off.
"""

from __future__ import annotations

import ctypes
import hashlib
import logging
import os
import platform
import shutil
import subprocess
import tempfile
import time
from functools import cache
from pathlib import Path
from typing import Any

SOURCE = Path(__file__).with_name("steps.cpp")
HEADERS = sorted(SOURCE.parent.glob("*.h"))
FLAGS = [
    *("-std=c++17", "-O3", "-march=native", "-ffp-contract=fast", "-fno-math-errno"),
    *("-fno-trapping-math", "-shared", "-fPIC"),
]


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
    if os.environ.get("BLT_NATIVE", "1") == "0":
        return None
    try:
        loaded = ctypes.CDLL(str(_compiled()))
    except (OSError, subprocess.SubprocessError) as error:
        logging.getLogger("blt").warning(
            "blt: %s; generation runs in PyTorch, at a fourth of the speed or less (BLT_NATIVE=0 "
            "says that you know)",
            _reason(error),
        )
        return None
    for name in ("run", "pool", "see", "product", "use_openmp"):
        getattr(loaded, f"blt_{name}").restype = None
    _share_threads(loaded)
    return loaded


def _share_threads(loaded: ctypes.CDLL) -> None:
    """Let the steps run on PyTorch's own threads; where these are not GNU's, on one thread."""
    maps = Path("/proc/self/maps")
    paths = maps.read_text().split() if maps.exists() else []
    for path in dict.fromkeys(path for path in paths if "libgomp" in path):
        openmp = ctypes.CDLL(path)  # already loaded: this only finds it
        functions = (openmp.GOMP_parallel, openmp.omp_get_thread_num, openmp.omp_get_num_threads)
        loaded.blt_use_openmp(*(ctypes.cast(f, ctypes.c_void_p) for f in functions))
        return


def _compiled() -> Path:
    """The shared library for this machine, compiled if it is not there yet.

    Raises:
        OSError: there is no compiler, or nowhere to write.
        subprocess.SubprocessError: the compiler failed.
    """
    compiler = os.environ.get("CXX") or shutil.which("c++") or shutil.which("g++")
    if compiler is None:
        raise OSError("no C++ compiler")
    # -march=native: a library is for one kind of processor, also where a home is shared.
    key = hashlib.sha256(b"".join(path.read_bytes() for path in (SOURCE, *HEADERS)))
    key.update(" ".join((compiler, *FLAGS, platform.machine(), _processor())).encode())
    folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "blt"
    target = folder / f"steps-{key.hexdigest()[:16]}.so"
    if not target.exists():
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        _forget_old(folder)
        with tempfile.TemporaryDirectory(dir=folder) as scratch:
            built = Path(scratch) / "steps.so"
            subprocess.run(
                [compiler, *FLAGS, str(SOURCE), "-o", str(built)],
                check=True,
                capture_output=True,
                timeout=300,
            )
            built.replace(target)
    return target


def _forget_old(folder: Path) -> None:
    """Remove what other versions of blt compiled a month ago."""
    for path in folder.glob("steps-*.so"):
        if time.time() - path.stat().st_mtime > 30 * 86400:
            path.unlink(missing_ok=True)


def _reason(error: Exception) -> str:
    """Why nothing could be compiled, on one line."""
    if isinstance(error, subprocess.CalledProcessError):
        said = error.stderr.decode("utf-8", "replace").splitlines() or ["no message"]
        return f"the C++ compiler {error.cmd[0]} failed: {said[0]}"
    return str(error)


def _processor() -> str:
    """What the processor can do."""
    info = Path("/proc/cpuinfo")
    if not info.exists():
        return platform.processor()
    lines = info.read_text().splitlines()
    return next((line for line in lines if line.startswith(("flags", "Features"))), "")
