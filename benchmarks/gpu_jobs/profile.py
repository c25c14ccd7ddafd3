"""Where the time of some work goes, on the device: kernels, launches, and how busy it is."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from torch.autograd import DeviceType  # type: ignore[attr-defined]
from torch.profiler import ProfilerActivity, profile

from benchmarks.gpu_jobs.place import Place

LAUNCHES = re.compile(r"cu(da)?LaunchKernel|cu(da)?GraphLaunch")
WAITS = re.compile(r"cuda(Stream|Device|Event)Synchronize|cudaMemcpy$")
SHOWN = 60  # kernels in the file, of
TOP = 8  # in the results


def profiled(
    place: Place, work: Callable[[], object], name: str, seconds: float, count: int = 1
) -> dict[str, Any]:
    """Profile ``count`` repetitions, and write the table of their kernels beside the results.

    Args:
        name: of the file, profile-NAME.txt.
        seconds: that one repetition takes when nobody looks; the share that the device is busy is
            of these.

    Returns:
        launches, kernels and waits of the host in one repetition, and the kernels that take most;
        on a CPU operators take the place of kernels.
    """
    on_gpu = place.device.type == "cuda"
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if on_gpu else [])]
    work()
    place.wait()
    with profile(activities=activities) as seen:
        for _ in range(count):
            work()
        place.wait()
    found, rows = told(seen.events() or [], on_gpu, seconds, count)
    lines = [
        f"{name}: one of {count} repetitions, {seconds * 1e3:.3f} ms when nobody looks; "
        f"{found['kernels']:.1f} kernels, {found['launches']:.1f} launches, the host waits "
        f"{found['waits']:.1f} times; the device is busy for {found['busy_share'] or 0:.1%}",
        *(f"{ms:10.3f} ms {times:9.1f} x  {kernel}" for kernel, ms, times in rows[:SHOWN]),
    ]
    (place.out / f"profile-{name}.txt").write_text("\n".join(lines) + "\n")
    return found


def told(
    events: Sequence[Any], on_gpu: bool, seconds: float, count: int
) -> tuple[dict[str, Any], list[tuple[str, float, float]]]:
    """What the profiler's events of ``count`` repetitions say about one: results as of
    :func:`profiled`; and name, milliseconds and number of its kernels, the longest first."""
    own = [event for event in events if _is_work(event, on_gpu)]
    busy = _covered((e.time_range.start, e.time_range.end) for e in own) / 1e6 / count
    host = [event.name for event in events if event.device_type == DeviceType.CPU]
    rows = _by_name(own, on_gpu, count)
    found = {
        "busy_share": busy / seconds if on_gpu else None,
        "kernels": len(own) / count,
        "launches": sum(bool(LAUNCHES.match(name)) for name in host) / count,
        # The last one is ours.
        "waits": max(0, sum(bool(WAITS.match(name)) for name in host) - 1) / count,
        "top_kernels": [list(row) for row in rows[:TOP]],
    }
    return found, rows


def _is_work(event: Any, on_gpu: bool) -> bool:
    """A kernel or a copy, and no mark that somebody made around several."""
    if getattr(event, "is_user_annotation", False) or event.name.startswith("ProfilerStep"):
        return False
    return event.device_type == (DeviceType.CUDA if on_gpu else DeviceType.CPU)


def _covered(spans: Iterable[tuple[float, float]]) -> float:
    """How much of a line spans cover, where they overlap counted once."""
    total, reached = 0.0, float("-inf")
    for start, end in sorted(spans):
        total += max(0.0, end - max(start, reached))
        reached = max(reached, end)
    return total


def _by_name(events: Sequence[Any], on_gpu: bool, count: int) -> list[tuple[str, float, float]]:
    """Name, milliseconds and number in one repetition of each kind of kernel, the longest first."""
    times: dict[str, list[float]] = defaultdict(list)
    for event in events:
        took = event.time_range.elapsed_us() if on_gpu else event.self_cpu_time_total
        times[event.name[:120]].append(took / 1e3)
    rows = [(name, sum(took) / count, len(took) / count) for name, took in times.items()]
    return sorted(rows, key=lambda row: -row[1])
