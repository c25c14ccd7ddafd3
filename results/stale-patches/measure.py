"""Bits of held-out text, and what drafts save, of runs with patches that came late: JSON lines.

python measure.py HELDOUT.txt.gz RUN_FOLDER...
"""

from __future__ import annotations

import gzip
import json
import sys
from pathlib import Path

import blt
from blt.generate import Engine, Sampling

PROMPTS, PROMPT_BYTES, NEW_BYTES, SCORED_BYTES = 8, 200, 300, 65536
DRAFTS = (0, 8, 16)


def measure(run: Path, text: bytes) -> dict[str, object]:
    lm = blt.load(run / "checkpoint")
    last = json.loads((run / "metrics.jsonl").read_text().splitlines()[-1])
    step = len(text) // (PROMPTS + 1)
    prompts = [text[step * n : step * n + PROMPT_BYTES] for n in range(1, PROMPTS + 1)]
    found: dict[str, object] = {
        "run": run.name,
        "flops": last.get("flops"),
        "bytes_seen": last.get("bytes_seen"),
        "bits_per_byte": lm.bits_per_byte(text[step : step + SCORED_BYTES], context=2048),
    }
    engine = Engine(lm, max_batch=1, precision="float32")
    for temperature in (0.0, 0.8):
        sampling = Sampling(max_bytes=NEW_BYTES, ignore_eos=True, temperature=temperature)
        plain = 0
        for k in DRAFTS:
            before = engine.model.counts.global_calls
            results = [engine.submit(p, sampling, draft_bytes=k).result() for p in prompts]
            calls = engine.model.counts.global_calls - before
            plain = plain or calls
            drafted = sum(result.drafted for result in results)
            accepted = sum(result.accepted for result in results)
            found[f"temperature {temperature}, {k} drafts"] = {
                "global_calls": calls,
                "saved": round(1 - calls / plain, 4),
                "drafted": drafted,
                "accepted": round(accepted / max(1, drafted), 4),
                "written": sum(len(result.data) for result in results),
            }
    return found


if __name__ == "__main__":
    whole = gzip.decompress(Path(sys.argv[1]).read_bytes())
    for folder in sys.argv[2:]:
        print(json.dumps(measure(Path(folder), whole)), flush=True)
