"""Serving: many clients on loopback, beside the engine alone on the same texts.

The server and the bare engine each are a process of their own. All clients ask for texts out of one
fixed set, which the bare engine writes first, so every answer is compared byte by byte.
"""

from __future__ import annotations

import asyncio
import base64
import json
import subprocess
import sys
import time
import urllib.request
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from threading import Thread, Timer
from typing import Any

from benchmarks.machine import about, apart
from benchmarks.report import print_table, report
from benchmarks.serve_clients import Outcome, drive
from benchmarks.serve_texts import Texts, engine_alone
from blt.errors import UserError
from blt.report.console import Console

WARM_UP = 10.0  # seconds, not measured
SAMPLE_SECONDS = 1.0  # between samples of the server's memory
START_SECONDS = 600.0  # until a server listens; it reads a model first
STOP_SECONDS = 90.0  # until it has ended, once it was asked to
COUNTER = "blt_completion_bytes_total"


@dataclass(frozen=True)
class Load:
    """What is done to a server."""

    model: str = "pretrained"
    clients: int = 64
    seconds: float = 60.0
    prompt_bytes: int = 64
    max_bytes: int = 256
    batch: int = 16
    # Also clients that leave, read slowly, send too much or nonsense, hold connections without a
    # word, or send long prompts of one letter.
    chaos: bool = False


def main(file: Path | None, as_json: bool, load: Load) -> int:
    """Measure, and print a table, JSON or both; 1 if an answer was wrong or missing."""
    results = report(partial(collect, load), show, file, as_json)
    return 1 if results["wrong"] or results["unanswered"] else 0


def collect(load: Load, console: Console) -> dict[str, Any]:
    """All measurements as plain data."""
    texts = Texts.of(load.prompt_bytes, load.max_bytes)
    with console.status("the engine alone"):
        before = apart(engine_alone, load=asdict(load))
    with console.status(f"{load.clients} clients for {load.seconds:.0f} seconds"):
        expected = [base64.b64decode(text) for text in before["texts"]]
        served = asyncio.run(_served(load, texts, expected))
    with console.status("the engine alone, again"):
        after = apart(engine_alone, load=asdict(load))
    # The machine's speed varies: the engine is measured on both sides of the server.
    bare = (before["bytes_per_second"] + after["bytes_per_second"]) / 2
    return {
        "machine": about(),
        "load": asdict(load),
        "bare_bytes_per_second": [r["bytes_per_second"] for r in (before, after)],
        "share_of_bare": served["bytes_per_second"] / bare,
        **served,
    }


@contextmanager
def server(load: Load) -> Iterator[tuple[str, int]]:
    """A server process: its address and process id."""
    options = ["--port", "0", "--batch", str(load.batch), "--max-body", str(2**18)]
    command = [sys.executable, "-m", "blt", "serve", load.model, *options]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        try:  # whatever happens from here on, somebody must end the server
            url = _url_of(process)
            # Somebody must read the log, or the server would wait at a full pipe.
            Thread(target=deque, args=(process.stderr, 0), daemon=True).start()
            yield url, process.pid
        finally:
            _stop(process)


def _url_of(process: subprocess.Popen[str]) -> str:
    """Where a server listens, once it says so; what it says before is passed over."""
    assert process.stderr is not None
    last = "it said nothing"
    late = Timer(START_SECONDS, process.kill)  # a silent server would be waited for without end
    late.start()
    try:
        for line in process.stderr:
            if '"listening"' in line:
                return str(json.loads(line)["url"])
            last = line.strip() or last
    finally:
        late.cancel()
    raise UserError(f"the server did not start: {last}; does blt serve start with this model?")


def _stop(process: subprocess.Popen[str]) -> None:
    """End a server, by force if it does not end by itself."""
    process.terminate()
    try:
        process.wait(timeout=STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()


async def _served(load: Load, texts: Texts, expected: list[bytes]) -> dict[str, Any]:
    with server(load) as (url, pid):
        await asyncio.to_thread(_await_health, url)
        outcome = Outcome()
        stop = time.monotonic() + WARM_UP + load.seconds
        clients = asyncio.create_task(drive(url, load, texts, expected, stop, outcome))
        await asyncio.sleep(WARM_UP)
        outcome.restart()
        written, begun = await asyncio.to_thread(_written, url), time.monotonic()
        memory = [resident(pid)]
        while time.monotonic() < stop:
            await asyncio.sleep(SAMPLE_SECONDS)
            memory.append(resident(pid))
        written = await asyncio.to_thread(_written, url) - written
        speed = written / (time.monotonic() - begun)
        await clients
    return {
        "bytes_per_second": speed,
        **outcome.to_json(),
        "memory": {
            "start": memory[0],
            "end": memory[-1],
            "growth": memory[-1] / memory[0] - 1,
            "samples": memory[:: max(1, len(memory) // 20)],
        },
    }


def _await_health(url: str) -> None:
    for _ in range(100):
        try:
            with urllib.request.urlopen(f"{url}/healthz", timeout=5):
                return
        except OSError:
            time.sleep(0.1)
    raise UserError(f"{url}: the server does not answer")


def _written(url: str) -> float:
    """Bytes of completions so far, of clients that have left too."""
    with urllib.request.urlopen(f"{url}/metrics", timeout=10) as answer:
        lines = answer.read().decode().splitlines()
    return float(next(line.split()[1] for line in lines if line.startswith(COUNTER)))


def resident(pid: int) -> int:
    """Bytes of memory that a process holds (Linux)."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * 4096


def show(results: dict[str, Any], console: Console) -> None:
    """Print what :func:`collect` returned."""
    bare, memory = results["bare_bytes_per_second"], results["memory"]
    first = results["first_byte_seconds"]
    rows = [
        ("bare engine before, after", ", ".join(f"{b:.0f} B/s" for b in bare), ""),
        ("served", f"{results['bytes_per_second']:.0f} B/s", ""),
        ("of the bare engine", f"{results['share_of_bare']:.1%}", ">= 90%"),
        ("first byte, median and p99", f"{first['p50']:.3f} s, {first['p99']:.3f} s", ""),
        ("answers compared, wrong", f"{results['compared']}, {results['wrong']}", "0 wrong"),
        ("requests without an answer", str(results["unanswered"]), "0"),
        ("memory", f"{memory['end'] / 2**20:.0f} MiB, {memory['growth']:+.1%}", "within 5%"),
        ("what clients did", str(results["requests"]), ""),
    ]
    rows += list(_chaos_rows(results)) if results["load"]["chaos"] else []
    print_table(console, ("what", "measured", "target"), rows)
    for line in results["unexpected"]:
        console.print(f"unexpected: {line}", markup=False)


def _chaos_rows(results: dict[str, Any]) -> Iterator[tuple[str, str, str]]:
    """What connections that hold places, and long prompts, cost the others."""
    held, gaps = results["held"], results["gap_seconds"]
    yield "connections held at most", str(held["most_open"]), ""
    yield "of these closed by the server", str(held["closed"]), ""
    checks = f"{held['health_failed']} of {held['health_checks']}, slowest "
    yield "health checks failed", f"{checks}{held['health_slowest']:.2f} s", "0"
    for name, of in gaps.items():
        seconds = f"{of['p50']:.3f} s, {of['p99']:.3f} s"
        yield f"between chunks, {name.replace('_', ' ')}: median, p99", seconds, ""
    # Most chunks come in one piece with another: their median is no time at all.
    usual, beside = gaps["usual"]["p99"], gaps["beside_long_prompts"]["p99"]
    yield "p99, beside long prompts over usual", f"{beside / max(1e-9, usual):.2f}", "< 3"
