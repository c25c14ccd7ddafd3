"""C++ of this project, compiled by the machine's own compiler on first use.

Where there is no compiler, or on another device, PyTorch does the same work, more slowly.
``BLT_NATIVE=0`` turns it off.
"""

from __future__ import annotations

import ctypes
import hashlib
import logging
import os
import platform
import shlex
import shutil
import subprocess
import tempfile
import time
from functools import cache
from pathlib import Path

import torch

HERE = Path(__file__).parent  # headers that all share
FLAGS = [
    *("-std=c++17", "-O3", "-march=native", "-ffp-contract=fast", "-fno-math-errno"),
    *("-fno-trapping-math", "-shared", "-fPIC"),
]

OPENMP = ("GOMP_parallel", "omp_get_thread_num", "omp_get_num_threads")


def compiled(source: Path, without: str) -> ctypes.CDLL | None:
    """The functions of a file, which may include the headers beside it and those here.

    Args:
        without: what happens where it cannot be compiled, for the warning.

    Returns:
        None where C++ is turned off or cannot be compiled.
    """
    if os.environ.get("BLT_NATIVE", "1") == "0":
        return None
    try:
        loaded = ctypes.CDLL(str(_library(source)))
    except (OSError, ValueError, subprocess.SubprocessError) as error:
        logging.getLogger("blt").warning(
            "blt: %s; %s (BLT_NATIVE=0 says that you know)", _reason(error), without
        )
        return None
    _share_threads(loaded)
    return loaded


def _share_threads(loaded: ctypes.CDLL) -> None:
    """Let it run on PyTorch's own threads; where these are none of GNU's kind, on one thread."""
    loaded.blt_use_openmp.restype = None
    if (openmp := _openmp()) is not None:
        functions = (getattr(openmp, name) for name in OPENMP)
        loaded.blt_use_openmp(*(ctypes.cast(f, ctypes.c_void_p) for f in functions))


@cache
def shares_threads() -> bool:
    """Are PyTorch's threads of a kind that C++ here can run on?"""
    return _openmp() is not None


def _openmp() -> ctypes.CDLL | None:
    """PyTorch's library, whose symbols are those of the OpenMP that it runs on, if that has GNU's;
    other packages may have loaded an OpenMP of their own."""
    try:
        found = ctypes.CDLL(str(Path(torch.__file__).parent / "lib" / "libtorch_cpu.so"))
    except OSError:
        return None
    return found if all(hasattr(found, name) for name in OPENMP) else None


def _library(source: Path) -> Path:
    """The shared library for this machine, compiled if it is not there yet.

    Raises:
        OSError: there is no compiler, or nowhere to write.
        ValueError: a quote in ``CXX`` that does not end.
        subprocess.SubprocessError: the compiler failed.
    """
    compiler = _compiler()
    # -march=native: a library is for one kind of processor, also where a home is shared.
    headers = sorted({*source.parent.glob("*.h"), *HERE.glob("*.h")})
    key = hashlib.sha256(b"".join(path.read_bytes() for path in (source, *headers)))
    key.update(" ".join((*compiler, *FLAGS, platform.machine(), _processor())).encode())
    folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "blt"
    target = folder / f"{source.stem}-{key.hexdigest()[:16]}.so"
    if not target.exists():
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        _forget_old(folder, source.stem)
        with tempfile.TemporaryDirectory(dir=folder) as scratch:
            built = Path(scratch) / "built.so"
            subprocess.run(
                [*compiler, *FLAGS, f"-I{HERE}", str(source), "-o", str(built)],
                check=True,
                capture_output=True,
                timeout=300,
            )
            built.replace(target)
    return target


def _compiler() -> list[str]:
    """The words that begin its command: those of ``CXX``, such as "ccache g++", or what is here.

    Raises:
        OSError: there is no compiler.
        ValueError: a quote in ``CXX`` that does not end.
    """
    told = shlex.split(os.environ.get("CXX", ""))
    found = shutil.which("c++") or shutil.which("g++")
    if not told and found is None:
        raise OSError("no C++ compiler")
    return told or [str(found)]


def _forget_old(folder: Path, stem: str) -> None:
    """Remove what other versions of blt compiled a month ago."""
    for path in folder.glob(f"{stem}-*.so"):
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
