"""Memory of a training step: all weights, or an adapter (LoRA) in their place.

Each training is a process of its own: what it holds more than the loaded model, at its peak.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch

import blt
from blt.cli.output import say
from blt.data import loader_of
from blt.files import durable
from blt.train import TrainConfig, lora
from blt.train.sections import LoraConfig
from blt.train.trainer import Trainer

# Small tables of n-grams, and a short text: weights are what is looked at.
SHAPES = {
    "wide": blt.Config(global_dim=1024, global_heads=16, global_ff_dim=2752, hash_rows=2000),
}
BYTES, STEPS, RANK = 256, 2, 16


def main(file: Path | None) -> None:
    rows: list[dict[str, Any]] = []
    for shape in SHAPES:
        with tempfile.TemporaryDirectory() as folder:
            blt.BLT(SHAPES[shape]).save(f"{folder}/base")
            for what in ("all weights", "adapter"):
                command = [sys.executable, "-m", "benchmarks.lora", what, f"{folder}/base"]
                done = subprocess.run(command, check=True, capture_output=True, text=True)
                rows.append({"shape": shape, "trained": what, **json.loads(done.stdout)})
                say(json.dumps(rows[-1]))
    if file is not None:
        about = {"bytes": BYTES, "steps": STEPS, "rank": RANK, "torch": torch.__version__}
        durable.write_text(file, json.dumps({**about, "rows": rows}, indent=2) + "\n")


def measure(what: str, base: str) -> dict[str, Any]:
    """One training, in this process."""
    lm = blt.load(base)
    lm.logits(blt.encode("x" * BYTES))  # what is mapped, and every library, is in memory by now
    if what == "adapter":
        lora.begin(lm, LoraConfig(rank=RANK), base, seed=0)
    elif isinstance(lm, blt.BLT) and lm.entropy_model is not None:
        lm.entropy_model.requires_grad_(False)
    Path("/proc/self/clear_refs").write_text("5")  # the peak counts from here
    before = _peak()
    text = bytes(torch.randint(97, 123, (8 * BYTES,)).tolist())
    batches = loader_of([text], batch_bytes=BYTES, context_bytes=BYTES)
    config = TrainConfig(steps=STEPS, device="cpu", precision="float32")
    trainer = Trainer(lm.train(), batches, config)
    for _ in range(STEPS):
        trainer.step(0.5)
    trainer.loader.close()
    learned = [p for p in lm.parameters() if p.requires_grad]
    return {
        "parameters": sum(p.numel() for p in lm.parameters()),
        "trained_parameters": sum(p.numel() for p in learned),
        "gradient_and_optimiser_bytes": _bytes(learned) + _bytes(trainer.state().tensors.values()),
        "model_bytes": _bytes(lm.parameters()),
        "peak_beyond_model_bytes": _peak() - before,
    }


def _bytes(tensors: Iterable[torch.Tensor]) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


def _peak() -> int:
    """Bytes that this process has had in memory at most."""
    lines = Path("/proc/self/status").read_text().splitlines()
    (line,) = (line for line in lines if line.startswith("VmHWM"))
    return int(line.split()[1]) * 1024


if __name__ == "__main__":
    print(json.dumps(measure(*sys.argv[1:])))
