"""Steps of a few rows on a CPU in C++, compiled by the machine's own compiler on first use.

Where there is no compiler, or on another device, PyTorch does the same work, more slowly.
``BLT_NATIVE=0`` turns it off.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import platform
import shutil
import subprocess
import tempfile
from functools import cache
from pathlib import Path

SOURCE = Path(__file__).with_name("steps.cpp")
FLAGS = [
    *("-std=c++17", "-O3", "-march=native", "-ffp-contract=fast", "-fno-math-errno"),
    *("-fno-trapping-math", "-shared", "-fPIC"),
]


class Weight(ctypes.Structure):
    """A matrix [out, in]; see steps.cpp for all of these."""

    _fields_ = [
        ("data", ctypes.c_void_p),
        ("scale", ctypes.c_void_p),
        ("kind", ctypes.c_int64),
        ("out", ctypes.c_int64),
        ("in_", ctypes.c_int64),
    ]


class Layer(ctypes.Structure):
    _fields_ = [
        ("attention_norm", ctypes.c_void_p),
        ("ff_norm", ctypes.c_void_p),
        ("cross_norm", ctypes.c_void_p),
        ("qkv", Weight),
        ("attention_out", Weight),
        ("gate_up", Weight),
        ("down", Weight),
        ("cross_query", Weight),
        ("cross_out", Weight),
    ]


class Stack(ctypes.Structure):
    _fields_ = [
        ("layers", ctypes.POINTER(Layer)),
        ("frequencies", ctypes.c_void_p),
        ("depth", ctypes.c_int64),
        ("dim", ctypes.c_int64),
        ("heads", ctypes.c_int64),
        ("cross_heads", ctypes.c_int64),
        ("eps", ctypes.c_float),
    ]


class Job(ctypes.Structure):
    _fields_ = [
        ("rows", ctypes.c_int64),
        ("x", ctypes.c_void_p),
        ("positions", ctypes.c_void_p),
        ("at", ctypes.c_void_p),
        ("oldest", ctypes.c_void_p),
        ("text", ctypes.c_void_p),
        ("caches", ctypes.c_void_p),
        ("capacity", ctypes.c_void_p),
        ("texts", ctypes.c_int64),
        ("cache_kind", ctypes.c_int64),
        ("seen", ctypes.c_void_p),
        ("seen_ids", ctypes.c_void_p),
        ("slices", ctypes.c_int64),
    ]


@cache
def library() -> ctypes.CDLL | None:
    """The compiled steps; None where they are turned off or cannot be compiled."""
    if os.environ.get("BLT_NATIVE", "1") == "0":
        return None
    try:
        loaded = ctypes.CDLL(str(_compiled()))
    except (OSError, subprocess.SubprocessError):
        return None
    for name in ("run", "product", "norm", "embed", "use_openmp"):
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
    key = hashlib.sha256(SOURCE.read_bytes())
    key.update(" ".join((compiler, *FLAGS, platform.machine(), _processor())).encode())
    folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "blt"
    target = folder / f"steps-{key.hexdigest()[:16]}.so"
    if not target.exists():
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
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


def _processor() -> str:
    """What the processor can do."""
    info = Path("/proc/cpuinfo")
    if not info.exists():
        return platform.processor()
    lines = info.read_text().splitlines()
    return next((line for line in lines if line.startswith(("flags", "Features"))), "")
