"""Process-wide settings that make PyTorch fast on a CPU, and leave others theirs."""

from __future__ import annotations

import ctypes
import os
import platform
from collections.abc import Iterator
from functools import cache
from pathlib import Path

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # from glibc's malloc.h
# How OpenMP's threads wait: for all runtimes, for GNU's (PyTorch's own on Linux), for LLVM's.
WAITING = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME")
THREADS = "OMP_NUM_THREADS"
CGROUPS = Path("/sys/fs/cgroup")


def prepare_threads() -> None:
    """Let OpenMP's threads sleep while they wait, and be no more than there are processors.

    They spin by default: where another program has the processors, each spins away the time that
    the thread it waits for would need. A training with two threads then crawls, beside one other
    process on two cores at a half to a hundredth of its speed.

    Environment variables, which OpenMP reads once, when PyTorch is imported: so this comes before.
    What the user has set stays.
    """
    if not any(name in os.environ for name in WAITING):
        os.environ["OMP_WAIT_POLICY"] = "PASSIVE"
    if THREADS not in os.environ:
        seen, free = _affinity(), processors()
        if free < seen:  # PyTorch itself counts what affinity allows, hyper-threads once
            os.environ[THREADS] = str(free)


def processors() -> int:
    """That this process may keep busy, at least 1.

    What affinity and the quota of a container allow, shared with the other processes of one
    training on this machine. Not fewer where others happen to be at work: how many threads add up
    a sum decides its last bits, and a training that is resumed goes on bit for bit.
    """
    free = min([_affinity(), *_quotas()])
    return max(1, int(free) // max(1, int(os.environ.get("LOCAL_WORLD_SIZE") or 1)))


def _affinity() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _quotas(own: Path = Path("/proc/self/cgroup"), mount: Path = CGROUPS) -> Iterator[float]:
    """Processors' worth of time that each of this process's control groups may use.

    Args:
        own: its groups, a line of ``number:controllers:path`` each; version 2 names none.
        mount: where the groups lie.
    """
    lines = own.read_text().splitlines() if own.is_file() else []
    for line in lines:
        controllers, _, path = line.partition(":")[2].partition(":")
        if controllers and "cpu" not in controllers.split(","):
            continue
        group = (mount / "cpu" if controllers else mount) / path.strip("/")
        # Limits above hold too; inside a container the mount itself is the group.
        for folder in (group, *group.parents):
            if folder.is_relative_to(mount):
                yield from _quota(folder)


def _quota(folder: Path) -> Iterator[float]:
    """The processors that one control group may use, in version 2 or 1; nothing if unlimited."""
    try:
        if (folder / "cpu.max").is_file():
            quota, period = (folder / "cpu.max").read_text().split()
        else:
            quota = (folder / "cpu.cfs_quota_us").read_text()
            period = (folder / "cpu.cfs_period_us").read_text()
        if int(quota) > 0:
            yield int(quota) / int(period)
    except (OSError, ValueError, ZeroDivisionError):  # "max", or no such group
        return


@cache
def keep_freed_memory() -> None:
    """Let glibc keep freed blocks instead of returning them to the kernel at once.

    By default every tensor above 32 MB is mapped afresh, and the page faults cost more than the
    arithmetic (a 33 MB bf16 product: 12.8 ms, with this 2.8 ms). ``BLT_KEEP_FREED_MEMORY=0``
    turns it off; on other C libraries nothing happens.
    """
    if os.environ.get("BLT_KEEP_FREED_MEMORY", "1") == "0" or platform.libc_ver()[0] != "glibc":
        return
    libc = ctypes.CDLL(None)
    libc.mallopt(M_MMAP_THRESHOLD, 1 << 30)
    libc.mallopt(M_TRIM_THRESHOLD, (1 << 31) - 1)
