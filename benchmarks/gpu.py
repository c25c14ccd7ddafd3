"""What this model does on a GPU: parity with the CPU, training speed, decoding, memory, the peer.

    python -m benchmarks gpu OUT_FOLDER              # under ten minutes on one CUDA device
    python -m benchmarks gpu OUT_FOLDER --smoke      # the same jobs on tiny shapes, on any machine

Writes OUT_FOLDER/gpu.json and OUT_FOLDER/gpu.md, anew after every job: one that takes too long
leaves what was found before it. A job that fails (out of memory, not supported) is written down
with its error, and the others go on. As a file (python benchmarks/gpu.py) it needs no tyro, and blt
only on the path: there are machines that have no more.
"""

from __future__ import annotations

import argparse
import gc
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Measure this model on a GPU.")
    parser.add_argument("out", type=Path)
    parser.add_argument("--smoke", action="store_true", help="tiny shapes, on any machine")
    options = parser.parse_args()
    sys.path[0] = str(Path(__file__).parents[1])
    from benchmarks.gpu import main as measure
    from blt.errors import UserError

    try:
        measure(options.out, options.smoke)
    except UserError as error:
        parser.error(str(error))
    raise SystemExit

import torch
import torch.nn.functional as F

import blt
from benchmarks import shape
from benchmarks.machine import about
from benchmarks.steps import our_step, transformers_step
from blt.errors import UserError
from blt.files.durable import write_json
from blt.generate import Engine
from blt.machine.hardware import peak_flops
from blt.model.config import Config
from blt.model.flops import flops_per_byte
from blt.model.packing import pack
from blt.train.parallel import compile_layers, recompute

BUDGET = 570.0  # seconds for everything
MEASURED = 6.0  # seconds of a measurement, after its warm-up
TARGET_MFU, TARGET_PEER = 0.45, 5.0
# Between CPU and GPU, relative to the largest logit.
TARGET_ERRORS = {"float32": 1e-4, "bf16": 2e-2}


class Bench:
    """Runs jobs one after another, and keeps and writes what they found."""

    def __init__(self, device: torch.device, smoke: bool, out: Path) -> None:
        self.device, self.smoke, self.out = device, smoke, out
        self.about = about(device)
        self.end = time.monotonic() + BUDGET
        self.results: dict[str, dict[str, Any]] = {}

    def job(self, name: str, work: Callable[[], dict[str, Any]]) -> None:
        if time.monotonic() > self.end:
            self.results[name] = {"error": "left out: no time was left"}
            self._write()
            return
        self._reset()
        start = time.monotonic()
        try:
            found = work()
        except Exception as error:  # whatever it is, the other jobs go on
            found = {"error": f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"}
        if self.device.type == "cuda":
            found["peak_memory"] = torch.cuda.max_memory_allocated()
        self.results[name] = {**found, "took": time.monotonic() - start}
        print(name, self.results[name], flush=True)
        self._write()

    def _write(self) -> None:
        self.out.mkdir(parents=True, exist_ok=True)
        write_json(self.out / "gpu.json", {"about": self.about, "results": self.results})
        (self.out / "gpu.md").write_text(markdown(self.about, self.results))

    def seconds(self, work: Callable[[], object]) -> float:
        """Seconds of one repetition: the mean, after two to warm up."""
        for _ in range(2):
            work()
        self._wait()
        start, count = time.perf_counter(), 0
        limit = 0.2 if self.smoke else MEASURED
        while count == 0 or time.perf_counter() - start < limit:
            work()
            count += 1
            self._wait()
        return (time.perf_counter() - start) / count

    def _wait(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize()

    def _reset(self) -> None:
        gc.collect()
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()


# --- parity ---------------------------------------------------------------------------------------


def parity(bench: Bench) -> dict[str, Any]:
    """Logits, gradients and greedy bytes, here and on the CPU; errors relative to the largest."""
    config = shape.TINY if bench.smoke else shape.CONFIG
    torch.manual_seed(0)
    here = blt.BLT(config).eval()
    there = blt.BLT(config).eval()
    there.load_state_dict(here.state_dict())
    there.to(bench.device)
    documents = [blt.encode(bytes(range(256)) * n) for n in (1, 3)]
    packed = here.pack(documents)
    moved = pack(
        [ids.to(bench.device) for ids in documents],
        [decision.to(bench.device) for decision in here.decide(documents)[0]],
    )
    found: dict[str, Any] = {}
    expected = here(packed).detach()
    for name, context in (
        ("float32", torch.autocast("cpu", enabled=False)),
        ("bf16", shape.numerics("bfloat16", bench.device)),
    ):
        with context:
            logits = there(moved).float().cpu()
        error = (logits.detach() - expected).abs().max() / expected.abs().max()
        found[f"{name}_error"] = error.item()
    with torch.no_grad():
        ours, theirs = (
            here.decide(documents)[1],
            there.decide([d.to(bench.device) for d in documents])[1],
        )
        found["entropy_error"] = max(
            float((a - b.cpu()).abs().max())
            for a, b in zip(ours, theirs, strict=True)
            if a is not None and b is not None
        )
    texts = [
        Engine(model, precision="float32", native=False).submit(b"some text", max_bytes=48)
        for model in (here, there)
    ]
    found["greedy_bytes_equal"] = texts[0].result().data == texts[1].result().data
    found["float32_gradient_error"] = gradient_error(here, there, packed, moved)
    return found


def gradient_error(here: Any, there: Any, packed: Any, moved: Any) -> float:
    errors = []
    for model, batch in ((here, packed), (there, moved)):
        logits = model(batch)
        F.cross_entropy(
            logits, torch.zeros(len(logits), dtype=torch.int64, device=logits.device)
        ).backward()
    for (name, a), b in zip(here.named_parameters(), there.parameters(), strict=True):
        if a.grad is not None and b.grad is not None and not name.endswith("ngram"):
            errors.append(float((a.grad - b.grad.cpu()).norm() / a.grad.norm().clamp_min(1e-12)))
    return max(errors)


# --- training -------------------------------------------------------------------------------------


def training(
    bench: Bench, config: Config, ids_in_batch: int, context: int, how: str
) -> dict[str, Any]:
    """Steps with given patches: forward, backward, clipping, optimisers; bf16 products."""
    model = spaced(bench, config)
    if how == "recompute":
        recompute(model)
    if how == "compile":
        compile_layers(model)
    rows = max(1, ids_in_batch // context)
    seconds = bench.seconds(our_step(model, rows, context, "bfloat16"))
    flops = flops_per_byte(config, shape.MEAN_PATCH_SIZE, context).training
    speed = rows * context / seconds
    peak = peak_flops(bench.device, torch.bfloat16)
    return {"bytes_per_second": speed, "mfu": flops * speed / peak if peak else None}


def spaced(bench: Bench, config: Config) -> blt.BLT:
    """A model of random weights on the device, without an entropy model: patches at spaces."""
    torch.manual_seed(0)
    patching = blt.PatchingConfig(rule="space")
    with bench.device:
        return blt.BLT(replace(config, entropy_model=None, patching=patching))


def peer_training(bench: Bench, config: Config, ids_in_batch: int, context: int) -> dict[str, Any]:
    """transformers' BLT: the same shape, batch and work."""
    model = shape.transformers_model(config).to(bench.device).train()
    rows = max(1, ids_in_batch // context)
    seconds = bench.seconds(transformers_step(model, rows, context, "bfloat16"))
    return {"bytes_per_second": rows * context / seconds}


# --- decoding -------------------------------------------------------------------------------------


def decoding(bench: Bench, config: Config, batch: int) -> dict[str, Any]:
    """Bytes per second after prompts of 512 bytes, patches at spaces, weights in bf16."""
    engine = Engine(spaced(bench, config).eval(), max_batch=batch, precision="bfloat16")
    for row in range(batch):
        prompt = bytes((7 * row + 3 * i) % 96 + 32 for i in range(512))
        engine.submit(prompt, max_bytes=10**6, temperature=1.0, seed=row, ignore_eos=True)
    start = time.perf_counter()
    engine.step()
    bench._wait()
    first = time.perf_counter() - start
    return {"bytes_per_second": batch / bench.seconds(engine.step), "first_byte_seconds": first}


# --- all of it ------------------------------------------------------------------------------------


def run(bench: Bench) -> None:
    bench.job("parity", partial(parity, bench))
    for name, config, ids, context in shapes(bench.smoke):
        work = (bench, config, ids, context)
        for how in ("plain", "recompute", "compile"):
            bench.job(f"training {name} {context} {how}", partial(training, *work, how))
        bench.job(f"transformers {name} {context}", partial(peer_training, *work))
        for batch in (1, 16):
            job = f"decoding {name} batch {batch}"
            bench.job(job, partial(decoding, bench, config, batch))


def shapes(smoke: bool) -> list[tuple[str, Config, int, int]]:
    """Name, shape, ids in a batch, context."""
    if smoke:
        return [("tiny", shape.TINY, 512, 256)]
    return [
        ("1b", shape.paper("blt-1b"), 16384, 8192),  # the targets are for this one
        ("small", shape.CONFIG, 65536, 8192),
        ("400m", shape.paper("blt-400m"), 32768, 8192),
    ]


def markdown(machine: dict[str, Any], results: dict[str, dict[str, Any]]) -> str:
    """A table of all jobs, and the targets."""
    lines = ["# On a GPU", "", ", ".join(f"{key} {value}" for key, value in machine.items()), ""]
    lines += ["| job | result | peak memory |", "|---|---|---|"]
    for name, found in results.items():
        memory = f"{found['peak_memory'] / 1e9:.1f} GB" if "peak_memory" in found else ""
        hidden = ("peak_memory", "took")
        shown = ", ".join(f"{k} {number(v)}" for k, v in found.items() if k not in hidden)
        lines.append(f"| {name} | {shown} | {memory} |")
    lines += ["", *verdicts(results)]
    return "\n".join(lines) + "\n"


def verdicts(results: dict[str, dict[str, Any]]) -> list[str]:
    """The targets: parity, and speed at the 1B shape."""
    lines = []
    for name, most in TARGET_ERRORS.items():
        error = results.get("parity", {}).get(f"{name}_error")
        if error is not None:
            lines.append(f"* {name}, CPU against this device: {error:.1e} (target {most:.0e})")
    ours = [r for name, r in results.items() if name.startswith("training 1b") and "mfu" in r]
    if not ours:
        return lines
    best = max(ours, key=lambda r: r["bytes_per_second"])
    if best["mfu"] is not None:
        lines.append(f"* 1B, context 8192: {best['mfu']:.0%} MFU (target {TARGET_MFU:.0%})")
    peer = results.get("transformers 1b 8192", {}).get("bytes_per_second")
    if peer:
        ratio = best["bytes_per_second"] / peer
        lines.append(f"* 1B, training over transformers: {ratio:.1f}x (target {TARGET_PEER}x)")
    return lines


def number(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def main(out: Path, smoke: bool = False) -> None:
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if device.type == "cpu" and not smoke:
        raise UserError("there is no CUDA device here; --smoke tries the jobs on tiny shapes")
    torch.backends.cuda.matmul.allow_tf32 = False  # parity is with float32
    run(Bench(device, smoke, out))
    print((out / "gpu.md").read_text())
