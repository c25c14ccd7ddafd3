"""Writing text after prompts: speed when warm, the share of the memory's speed, launches."""

from __future__ import annotations

import gc
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch

import blt
from benchmarks import shape
from benchmarks.generate_jobs import weight_bytes
from benchmarks.gpu_jobs import shapes
from benchmarks.gpu_jobs.device import peak_bandwidth
from benchmarks.gpu_jobs.place import Found, Place
from benchmarks.gpu_jobs.profile import profiled
from blt.errors import UserError
from blt.generate import Engine
from blt.generate.captured.writer import CapturedWriter
from blt.generate.request import Handle
from blt.model.config import Config
from blt.train import build_blt

PROMPT = 1024  # bytes
PROMPTED = 8  # different prompts of a batch, each read once; texts go apart as they are drawn
WARM_UP = 100  # bytes of each text that are written before anything is measured
MEASURED = 400  # bytes of each text at most, besides those that are profiled
PROFILED = 8
# Prompts are read a few at a time, between steps of those that write by then: these come so far
# ahead, and must not end while anything is measured.
AHEAD = 1024  # bytes
FIRST_BYTES = 5  # prompts of which the median counts
# Of what texts can need at most, which engines may count as if every patch were one byte.
NO_LIMIT = 2**40
LITTLE = 1e-3
DRAFTS = (0, 4, 8)
PROMPTS = ("import ", "def __init__(self", "class Foo", "Return the ")


def decoding(place: Place, config: str, batch: int, rule: str) -> Found:
    """Bytes per second of ``batch`` texts together, drawn at temperature 1 from random weights.

    Args:
        rule: what cuts patches, "entropy" or "lookup"; of 4.5 bytes on average.
    """
    model = drawn(shapes.blt_shape(config, place), rule, place.device)
    room = place.sized(WARM_UP + MEASURED + 2 * PROFILED + 2, 40)
    room += place.sized(AHEAD, 40) * (batch > 1)
    prompts = [
        _prompt(row, place.sized(PROMPT, 32)) for row in range(min(batch, place.sized(batch, 2)))
    ]
    start = time.perf_counter()
    engine, handles = started(place, model, prompts, room)
    _written(engine, handles, 1)
    yield {"prompts_seconds": time.perf_counter() - start, "memory_budget": engine.memory_budget}
    _written(engine, handles, place.sized(WARM_UP, 4))
    place.wait()
    lengths, captures = [handle.available for handle in handles], _captures(engine)
    start = time.perf_counter()
    steps, most = 0, place.sized(MEASURED, 8)
    while steps < most and time.perf_counter() - start < place.measured:
        engine.step()
        steps += 1
        if any(handle.finished for handle in handles):
            break
    place.wait()
    seconds = time.perf_counter() - start
    check(handles)
    written = sum(handle.available for handle in handles) - sum(lengths)
    speed, size = written / seconds, _patch_size(handles)
    read = bytes_read(model.config, len(handles), size, PROMPT + WARM_UP)
    peak = peak_bandwidth(place.device)
    yield {
        "bytes_per_second": speed,
        "bytes_per_patch": size,
        "steps": steps,
        "bytes_ahead": max(lengths) - min(lengths),  # of the text that began first
        "captures": _captures(engine) - captures,  # meanwhile: they take time from the steps
        "mbu": read * steps / seconds / peak if peak else None,
    }
    name = f"decoding-{config}-{batch}-{rule}"
    yield profiled(place, engine.step, name, seconds / steps, place.sized(PROFILED, 2))
    if batch == 1:
        for handle in handles:
            handle.cancel()
        yield {"first_byte_seconds": _first_byte(place, engine)}


def drawn(config: Config, rule: str, device: torch.device) -> blt.BLT:
    """A BLT of random weights whose rule cuts patches of 4.5 bytes on average."""
    torch.manual_seed(0)
    if rule == "lookup":
        order = blt.PatchingConfig().lookup_order
        patching = blt.PatchingConfig(rule="lookup", lookup_order=order)
        with device:
            model = blt.BLT(replace(config, entropy_model=None, patching=patching)).eval()
            model.lookup_table = torch.rand(260**order) < 1 / shape.MEAN_PATCH_SIZE
        return model
    assert config.entropy_model is not None
    entropy_model = shapes.over_bytes(config.entropy_model, device).eval()
    documents = list(shape.random_ids(1, 4096).to(device))
    with torch.no_grad():
        for name, weight in entropy_model.named_parameters():
            # Entropies then follow the last byte alone, and are the same in any text.
            if name.endswith(("attention.out.weight", "ff.down.weight")):
                weight.mul_(LITTLE)
    with torch.no_grad(), shape.numerics("bfloat16", device):
        (entropies,) = entropy_model.document_entropies(documents)
    patching = blt.PatchingConfig(threshold=shape.calibrated_threshold(entropies))
    with device:
        return build_blt(replace(config, patching=patching), entropy_model).eval()


def started(
    place: Place, model: blt.BLT, prompts: Sequence[bytes], room: int
) -> tuple[Engine, list[Handle]]:
    """An engine that writes ``room`` bytes after each prompt, all at once.

    Its caches may take most of what the device has free; where that would let fewer texts in, as
    much as they like.
    """
    for budget in (place.memory() * 8 // 10, NO_LIMIT):
        engine = Engine(model, max_batch=len(prompts), memory_budget=budget, precision="bfloat16")
        try:
            handles = [
                engine.submit(prompt, max_bytes=room, temperature=1.0, seed=row, ignore_eos=True)
                for row, prompt in enumerate(prompts)
            ]
        except UserError:
            continue
        engine.step()
        check(handles)
        if engine.running == len(prompts):
            return engine, handles
        del engine, handles
        gc.collect()  # an engine refers to itself, and holds gigabytes
    raise UserError(f"not all of {len(prompts)} texts are written at once")


def bytes_read(config: Config, batch: int, patch_size: float, position: int) -> float:
    """What a step that writes a byte of each text has to read: weights and caches in bfloat16.

    The global transformer's weights are read where any text closes a patch, its keys and values
    once for each that does; those of bytes, within the window, for every text.
    """
    c, closes = config, 1 / patch_size
    calls = 1 - (1 - closes) ** batch  # the share of steps with any patch
    weights = weight_bytes(c, "bfloat16", 1 / calls)
    local = c.local_dim * (c.encoder_layers + c.decoder_layers) * min(position, c.sliding_window)
    if (e := c.entropy_model) is not None:
        local += e.dim * e.layers * min(position, e.sliding_window)
    of_patches = c.global_dim * c.global_layers * position / patch_size
    keys_and_values = 2 * 2  # bytes each
    return weights + keys_and_values * batch * (local + closes * of_patches)


def speculation(place: Place) -> Found:
    """The model inside the package continues prompts, with drafts of some bytes and without."""
    model: Any = blt.load("pretrained").to(place.device)
    engine = Engine(model, max_batch=1, precision="bfloat16")
    room, speeds = place.sized(400, 8), dict.fromkeys(DRAFTS, 0.0)
    written: dict[int, list[bytes]] = {}
    for turn in range(place.sized(3, 1) + 1):  # the first warms up
        for drafts in DRAFTS:
            begun = time.perf_counter()
            written[drafts] = [
                finished(engine, prompt, max_bytes=room, ignore_eos=True, draft_bytes=drafts)
                for prompt in PROMPTS[: place.sized(len(PROMPTS), 1)]
            ]
            speed = sum(map(len, written[drafts])) / (time.perf_counter() - begun)
            if turn:
                speeds[drafts] = max(speeds[drafts], speed)
        if turn:
            found = {f"bytes_per_second_{n}_drafted": speed for n, speed in speeds.items()}
            same = [texts == written[0] for texts in written.values()]
            yield {**found, "speedup": max(speeds.values()) / speeds[0], "same_texts": all(same)}


def check(handles: Sequence[Handle]) -> None:
    """Has every text been written without an error so far?

    Raises:
        RuntimeError: says what went wrong.
    """
    for handle in handles:
        if handle.finished and (text := handle.result()).finish_reason == "error":
            raise RuntimeError(text.error)


def finished(engine: Engine, prompt: bytes | str, **how: Any) -> bytes:
    """What an engine writes after a prompt; ``how`` and errors: of its ``submit``, of ``check``."""
    handle = engine.submit(prompt, **how)
    text = handle.result()
    check([handle])
    return text.data


def _prompt(row: int, size: int) -> bytes:
    """One of a few, each at another place in its patch."""
    which = row % PROMPTED
    return bytes((7 * which + 3 * i) % 96 + 32 for i in range(size - 1 - which))


def _captures(engine: Engine) -> int:
    """CUDA graphs that an engine has made so far."""
    writer = engine._writer
    return writer.launch.captures if isinstance(writer, CapturedWriter) else 0


def _written(engine: Engine, handles: Sequence[Handle], least: int) -> None:
    """Work until every text has so many bytes."""
    while min(handle.available for handle in handles) < least:
        engine.step()
        check(handles)


def _patch_size(handles: Sequence[Handle]) -> float:
    starts = [handle.piece().starts for handle in handles]
    return sum(map(len, starts)) / max(1, sum(map(sum, starts)))


def _first_byte(place: Place, engine: Engine) -> float:
    """Median of seconds from a prompt to its first byte; the engine is warm, and has no other."""
    found = []
    for row in range(FIRST_BYTES):
        prompt = _prompt(row, place.sized(PROMPT, 32))
        begun = time.perf_counter()
        finished(engine, prompt, max_bytes=1, temperature=1.0, ignore_eos=True)
        found.append(time.perf_counter() - begun)
    return sorted(found)[len(found) // 2]
