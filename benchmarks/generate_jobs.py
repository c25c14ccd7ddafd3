"""The measurements of generation, each to be called in a process of its own.

Texts are drawn from random models at temperature 1. To random weights no byte is harder than
another, so patches are cut of 4 and 5 bytes in turn; entropies are computed all the same.
"""

from __future__ import annotations

import hashlib
import math
import random
import time
from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F

import blt
from benchmarks import shape
from benchmarks.cpu_jobs import transformers_side
from benchmarks.machine import fastest
from benchmarks.steps import transformers_writer
from blt.generate import Engine, Sampling, driven
from blt.generate.caches.rings import MAX_ROWS
from blt.generate.incremental import CachedModel
from blt.generate.incremental_blt import cached
from blt.generate.sampling import draw
from blt.generate.weights import cache_dtype, packed
from blt.model.config import ByteTransformerConfig, Config
from blt.patching.rules import RULES, Place, Rule

PROMPT = 1024  # bytes
BITS_BYTES = 50_000  # to score
PATCHES = (4, 5)  # bytes, in turn
SECONDS = 8.0  # per measurement
WINDOW = 1.0  # seconds: the fastest counts, as the peer's fastest byte does
ROUNDS = 3  # of texts that a trained model writes; the fastest counts
WARM_UP = 64  # bytes
FOREVER = 10**6
WEIGHT_BYTES = {"float32": 4, "bfloat16": 2, "int8": 1}
# The released 1B's proportions at a quarter of its widths.
PROPORTIONS = Config(
    local_dim=256,
    local_heads=4,
    encoder_ff_dim=682,
    decoder_layers=9,
    decoder_ff_dim=704,
    global_dim=512,
    global_heads=4,
    global_layers=25,
    global_ff_dim=1408,
    hash_rows=5000,
    entropy_model=ByteTransformerConfig(dim=192, heads=3, layers=14, ff_dim=512),
)


def random_bytes(count: int, seed: int = 0) -> bytes:
    return random.Random(seed).randbytes(count)


def random_engine(config: Config, precision: Any, **options: Any) -> Engine:
    """An engine with random weights that cuts patches of 4.5 bytes on average."""
    torch.manual_seed(0)

    def holds_at(self: Rule, at: Place) -> bool:
        return at.position % sum(PATCHES) in (0, PATCHES[0])

    rule: Any = RULES[config.patching.rule]
    rule.holds_at = holds_at  # this process measures nothing else
    return Engine(blt.BLT(config), precision=precision, memory_budget=2**40, **options)


def written(engine: Engine) -> int:
    return sum(len(request.data) for request in engine._running)


def in_turns(engines: Mapping[str, Engine]) -> dict[str, dict[str, float]]:
    """Bytes per second of all running requests of each engine together, and bytes per patch."""
    for engine in engines.values():
        while written(engine) < WARM_UP * len(engine._running):
            engine.step()
    windows: dict[str, list[tuple[int, int, float]]] = {name: [] for name in engines}
    for _ in range(round(SECONDS / WINDOW)):
        for name, engine in engines.items():
            windows[name].append(_window(engine))
    return {name: _fastest(found) for name, found in windows.items()}


def _fastest(windows: Sequence[tuple[int, int, float]]) -> dict[str, float]:
    size, patches, seconds = max(windows, key=lambda window: window[0] / window[2])
    return {"bytes_per_second": size / seconds, "bytes_per_patch": size / max(1, patches)}


def _window(engine: Engine) -> tuple[int, int, float]:
    """Bytes, patches and seconds."""
    before, patches = written(engine), engine.model.counts.global_transformer
    begun = time.perf_counter()
    while time.perf_counter() - begun < WINDOW:
        engine.step()
    took = time.perf_counter() - begun
    return written(engine) - before, engine.model.counts.global_transformer - patches, took


def start(engine: Engine, count: int, prompt: int = PROMPT) -> None:
    """Let it write ``count`` texts, each at a phase of its own in its patch."""
    for seed in range(count):
        engine.submit(
            random_bytes(prompt + seed, seed),
            max_bytes=FOREVER,
            temperature=1.0,
            ignore_eos=True,
            seed=seed,
        )
    engine.step()


def ours(precision: str, batches: list[int]) -> dict[str, Any]:
    """Bytes per second after a prompt by batch, and the weights that had to be read for a byte."""
    engines = {}
    for batch in batches:
        engines[str(batch)] = random_engine(shape.CONFIG, precision, max_batch=batch)
        start(engines[str(batch)], batch)
    results = in_turns(engines)
    for result in results.values():
        result["weight_bytes"] = weight_bytes(shape.CONFIG, precision, result["bytes_per_patch"])
    return results


def weight_bytes(config: Config, precision: str, bytes_per_patch: float) -> float:
    """Bytes of weights that must be read to write one byte at batch 1."""
    with torch.device("meta"):
        model = blt.BLT(config)
    per_patch, per_byte = 0, 0
    for name, parameter in model.named_parameters():
        size = parameter.numel() * WEIGHT_BYTES[precision] if parameter.dim() == 2 else 0
        if "embedding" in name or name.endswith("byte"):
            continue  # a row per table
        of_patches = ("global_transformer", "patch_projection", "encoder.cross", "key_value")
        if any(part in name for part in of_patches):
            per_patch += size
        else:
            per_byte += size
    return per_byte + per_patch / bytes_per_patch


def peer(precision: str) -> dict[str, Any]:
    """``transformers`` without a cache: a full forward for every byte."""
    model = transformers_side(precision).eval()
    ids = torch.tensor([[byte + 4 for byte in random_bytes(PROMPT)]])
    return {"bytes_per_second": 1 / fastest(transformers_writer(model, ids), SECONDS)}


def bandwidth() -> dict[str, Any]:
    """Bytes per second at which memory is read."""
    data = torch.ones(10**8)
    return {"bytes_per_second": data.nbytes / fastest(data.sum, 2.0)}


def length(precision: str, short: int, long: int) -> dict[str, Any]:
    """Seconds per byte around ``short`` and ``long`` written bytes; local: without a new patch."""
    engine = random_engine(shape.CONFIG, precision, max_batch=1)
    start(engine, 1, prompt=1)
    result: dict[str, Any] = {}
    for name, at in (("short", short), ("long", long)):
        while written(engine) < at:
            engine.step()
        all_steps, local = [], []
        for _ in range(600):
            patches, begun = engine.model.counts.global_calls, time.perf_counter()
            engine.step()
            all_steps.append(time.perf_counter() - begun)
            if engine.model.counts.global_calls == patches:
                local.append(all_steps[-1])
        result[name] = {"all": sum(all_steps) / len(all_steps), "local": median(local)}
    return result


def median(values: list[float]) -> float:
    return sorted(values)[len(values) // 2]


def fork(precision: str, prompt: int, count: int) -> dict[str, Any]:
    """Seconds until ``count`` texts of ``prompt`` bytes are ready: each read, or one copied."""
    engine = random_engine(shape.CONFIG, precision, max_batch=count)

    def read(seeds: list[int]) -> float:
        for seed in seeds:
            engine.submit(random_bytes(prompt, seed), max_bytes=2, ignore_eos=True)
        begun = time.perf_counter()
        engine.run()
        return time.perf_counter() - begun

    read([0])
    return {
        "read_each": min(read(list(range(count))) for _ in range(2)),
        "read_once": min(read([0] * count) for _ in range(2)),
    }


def speculate(folder: str, precision: str, drafts: list[int], temperature: float) -> dict[str, Any]:
    """A trained model continues prompts: speed, acceptance, passes of the global transformer."""
    lm = blt.load(folder)
    engine = Engine(lm, max_batch=1, precision=precision)  # type: ignore[arg-type]
    prompts = ("import ", "def __init__(self", "class Foo", "Return the ")
    sampling = Sampling(max_bytes=600, ignore_eos=True, temperature=temperature)
    found: dict[str, Any] = {}
    for turn in range(ROUNDS + 1):
        for k in drafts:
            calls, begun = engine.model.counts.global_calls, time.perf_counter()
            results = [engine.submit(p, sampling, draft_bytes=k).result() for p in prompts]
            took = time.perf_counter() - begun
            drafted = sum(result.drafted for result in results)
            speed = sum(len(result.data) for result in results) / took
            before = found.get(str(k), {}).get("bytes_per_second", 0.0)
            found[str(k)] = {
                "bytes_per_second": max(before, speed if turn else 0.0),  # the first warms up
                "acceptance": sum(result.accepted for result in results) / max(1, drafted),
                "global_calls": engine.model.counts.global_calls - calls,
                "text": hashlib.sha256(b"".join(result.data for result in results)).hexdigest(),
            }
    return found


def proportions(precision: str, acceptance: dict[str, float]) -> dict[str, Any]:
    """The 1B's proportions, random weights, by drafts, accepted as often as was measured."""
    chance = random.Random(0)
    engines = {}
    for k in acceptance:
        engines[k] = random_engine(PROPORTIONS, precision, max_batch=1, draft_bytes=int(k))
        start(engines[k], 1)

    def verify(p: Any, q: Any, drafted: int, generator: Any) -> int:
        k = next(
            str(e.draft_bytes) for e in engines.values() if e._running[0].generator is generator
        )
        if chance.random() < acceptance[k]:
            return drafted
        token = draw(p, generator)
        return token if token != drafted else 4 + (drafted - 3) % 256

    vars(driven)["verify"] = verify  # this process measures nothing else
    return in_turns(engines)


def bits(folder: str, precision: str) -> dict[str, Any]:
    """Bits per byte of held-out Python source, read in steps with caches, as texts are written."""
    from blt.data.heldout import split
    from blt.data.python_corpus import python_corpus
    from blt.texts.pieces import choose, segments

    lm = packed(blt.load(folder), precision)  # type: ignore[arg-type]
    model = cached(lm, 1, cache_dtype(lm, precision))  # type: ignore[arg-type]
    pieces = segments(choose(split(python_corpus()).heldout, BITS_BYTES), 2048)
    nats = sum(nats_in_steps(model, piece) for piece in pieces)
    return {"bits_per_byte": nats / math.log(2) / sum(map(len, pieces))}


def nats_in_steps(model: CachedModel, text: bytes) -> float:
    ids = blt.encode(text)
    model.read([ids[:1].tolist()])
    logits = [model.logits[:1].clone()]
    for part in ids[1:].split(MAX_ROWS):
        logits.append(model.extend([part.tolist()])[0])
        model.commit([len(part)])
    model.drop(0)
    return F.cross_entropy(torch.cat(logits)[:-1], ids[1:], reduction="sum").item()
