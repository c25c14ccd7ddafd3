"""`blt prepare` with entropies, beside transformers' patcher with the same weights and text.

    python -m benchmarks prepare [FILE.json]

Ours is the whole job, from text files to shards with a manifest; theirs is the patcher alone, on
text that is in memory already, in the precision that is fastest for it.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

if __name__ == "__main__":  # python benchmarks/prepare.py is python -m benchmarks prepare
    sys.path[0] = str(Path(__file__).parents[1])
    from benchmarks.__main__ import main as command

    raise SystemExit(command(["prepare", *sys.argv[1:]]))

import numpy as np
import torch

import blt
from benchmarks import shape
from benchmarks.machine import about, fastest
from benchmarks.report import write
from blt.data.left_out import Broken
from blt.data.prepare import Options, prepare
from blt.data.shards import ShardSegments
from blt.data.sources import units

TEXT_BYTES = 2**20  # that ours prepares
LENGTHS = (8192, 2048)  # bytes of each document
BATCH_BYTES = 8192  # that the patcher reads at once; more is slower
PRECISIONS = ("float32", "bfloat16", "bfloat16-weights")


def documents(length: int) -> list[bytes]:
    """This Python's documentation and source, in documents of one length."""
    found = [d for unit in units("builtin:python") for d in unit.documents(Broken())]
    text = b"".join(found)[:TEXT_BYTES]
    return [text[at : at + length] for at in range(0, len(text), length)]


def ours(model: Path, texts: list[bytes], precision: str, folder: Path) -> tuple[float, np.ndarray]:
    """Bytes per second, and the entropies of the first document."""
    source = folder / "text.jsonl"
    lines = [json.dumps({"text": text.decode("latin-1")}) for text in texts]  # any bytes
    source.write_text("\n".join(lines))
    options = Options((str(source),), 0.0, str(model), precision=precision)  # type: ignore[arg-type]
    start = time.perf_counter()
    manifest = prepare(folder / "shards", options)
    speed = manifest["bytes"] / (time.perf_counter() - start)
    piece = ShardSegments(folder / "shards", "train").read(0, 0, len(texts[0]))
    assert piece.entropies is not None
    return speed, piece.entropies


def theirs(patcher: Any, texts: list[bytes], precision: str) -> float:
    """Bytes per second."""
    rows = texts[: BATCH_BYTES // len(texts[0])]
    ids = torch.stack([blt.encode(text, bos=False) for text in rows])
    with torch.no_grad(), shape.numerics(precision):
        seconds = fastest(lambda: patcher(ids, patch_size=4, threshold=1.0), 10.0)
    return ids.numel() / seconds


@torch.no_grad()
def their_entropies(patcher: Any, text: bytes) -> np.ndarray:
    ids = blt.encode(text.decode("latin-1"))[None]
    return patcher(ids, patch_size=4, threshold=1.0)[0][0].float().numpy()


def compare(length: int) -> dict[str, Any]:
    """Both sides on documents of one length."""
    texts, peer = documents(length), shape.transformers_model().eval()
    rows: dict[str, Any] = {"ours": {}, "transformers": {}}
    with tempfile.TemporaryDirectory() as scratch:
        model = Path(scratch) / "model"
        blt.from_transformers(peer).save(model)
        expected = their_entropies(peer.model.patcher, texts[0])
        for precision in PRECISIONS[:2]:
            folder = Path(scratch) / precision
            folder.mkdir()
            speed, found = ours(model, texts, precision, folder)
            error = float(np.abs(found - expected[: len(found)]).max())
            rows["ours"][precision] = {"bytes_per_second": speed, "largest_error_nats": error}
            print(
                f"{length}: blt prepare, {precision}: {speed:,.0f} bytes/s, off by {error:.1e} nats"
            )
    for precision in PRECISIONS:
        if precision == "bfloat16-weights":
            peer.bfloat16()
        speed = theirs(peer.model.patcher, texts, precision)
        rows["transformers"][precision] = {"bytes_per_second": speed}
        print(f"{length}: transformers' patcher, {precision}: {speed:,.0f} bytes/s")
    best = {side: max(row["bytes_per_second"] for row in rows[side].values()) for side in rows}
    print(f"{length}: {best['ours'] / best['transformers']:.1f}x")
    return {**rows, "ratio": best["ours"] / best["transformers"]}


def main(file: Path | None) -> None:
    results: dict[str, Any] = {f"documents of {n} bytes": compare(n) for n in LENGTHS}
    results["machine"] = about()
    write(file, results)
