"""How much of what models write falls into a loop, greedy and under other decodings?

    python -m tools.loops blt old=runs/old/checkpoint \\
        --data ../shared/data --out results/pretrained/loops.jsonl
    python -m tools.loops --table results/pretrained/loops.jsonl

Models are named as for ``python -m tools.score``. Prompts are up to 128 bytes in whole characters,
as many of each kind of held-out text: pieces of books and PEPs at equal distances, and the
beginnings of the same FLORES sentences in several languages. After each a model writes 200 bytes,
in whole characters and without an end of text.

**A loop** is a continuation that ends in one unit of at most 32 bytes, written at least three
times, over at least 64 bytes; its last copy may be cut off. Each byte of that end is the one a
unit before it: a period p of the last max(64, 3 p) bytes.

A line is a model and a decoding: ``share`` of ``prompts`` that end in a loop, with the ends of
Wilson's 95 % interval, the ``seed`` of the first prompt (each has one more), the ``options`` of
:meth:`lm.generate`, and ``text``, the SHA-256 of the prompts. What has a line is not made again.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from blt import vocab
from blt.machine.precision import choose_device
from blt.study.markdown import table_head, table_row
from blt.texts.pieces import choose
from tools.asked import parser, positive, run
from tools.heldout import FLORES, Text, texts
from tools.lines import Line, append, read_lines, rounded
from tools.models import Model, open_model

UNIT, TIMES, SPAN = 32, 3, 64  # bytes of a unit at most; copies and bytes of the end at least
BYTES, PROMPTS, PROMPT_BYTES = 200, 50, 128
LANGUAGES = ("eng", "deu", "rus", "arb", "hin", "zho", "jpn", "swh")
KINDS = ("English books", "PEPs", *(FLORES + language for language in LANGUAGES))
Z = 1.959964  # of the normal distribution: 95 % lie within

DECODINGS: dict[str, Mapping[str, Any]] = {
    "greedy": {},
    "greedy, repetition penalty 1.2": {"repetition_penalty": 1.2},
    "temperature 0.5": {"temperature": 0.5},
    "temperature 0.8": {"temperature": 0.8},  # what `blt generate` does
    "temperature 0.8, top-k 40": {"temperature": 0.8, "top_k": 40},
    "temperature 0.8, top-p 0.9": {"temperature": 0.8, "top_p": 0.9},
    "temperature 0.8, min-p 0.05": {"temperature": 0.8, "min_p": 0.05},
    "temperature 0.8, repetition penalty 1.2": {"temperature": 0.8, "repetition_penalty": 1.2},
    "temperature 1": {"temperature": 1.0},
    "temperature 1, min-p 0.1": {"temperature": 1.0, "min_p": 0.1},
}
KEY = ("sha256", "rule", "decoding", "text", "seed", "bytes")  # what a line is about


def loop(data: bytes) -> bytes | None:
    """The unit that a text ends in again and again, the shortest; None: it ends in no loop."""
    for period in range(1, UNIT + 1):
        size = max(SPAN, TIMES * period)
        end = data[-size:]
        if len(end) == size and end[period:] == end[:-period]:
            return end[:period]
    return None


def wilson(count: int, total: int) -> tuple[float, float]:
    """Where a share lies with 95 %, of which ``count`` of ``total`` > 0 were seen."""
    share, over = count / total, Z * Z / total
    middle = share + over / 2
    spread = math.sqrt(over * (share * (1 - share) + over / 4))
    return max(0.0, (middle - spread) / (1 + over)), min(1.0, (middle + spread) / (1 + over))


def prompts_of(kinds: Sequence[Text], count: int) -> list[bytes]:
    """So many prompts in all, as many of each kind."""
    share = [count * (n + 1) // len(kinds) - count * n // len(kinds) for n in range(len(kinds))]
    return [
        prompt for kind, each in zip(kinds, share, strict=True) for prompt in _prompts(kind, each)
    ]


def _prompts(text: Text, count: int) -> list[bytes]:
    """Of parallel text the first sentences; of other text pieces from everywhere."""
    if text.sentences is not None:
        found = text.sentences[:count]
    else:
        found = choose(text.documents, count * PROMPT_BYTES, PROMPT_BYTES)[:count]
    return [_whole(piece[:PROMPT_BYTES]) for piece in found]


def _whole(piece: bytes) -> bytes:
    """Without characters that are cut off on either side."""
    begun = next((at for at, byte in enumerate(piece[:4]) if byte & 0xC0 != 0x80), 0)
    return vocab.whole(piece[begun:])


def todo(model: Model, prompts: Sequence[bytes], seed: int) -> Iterator[Line]:
    """What lines are about, one for each decoding."""
    text = hashlib.sha256(b"\0".join(prompts)).hexdigest()
    for name, options in DECODINGS.items():
        about = {"decoding": name, "options": dict(options), "prompts": len(prompts)}
        yield {**model.about, **about, "text": text, "seed": seed, "bytes": BYTES}


def written(model: Model, prompts: Sequence[bytes], line: Line) -> Line:
    """How many of the prompts' continuations end in a loop."""
    begun = time.perf_counter()
    how = {**line["options"], "max_bytes": BYTES, "valid_utf8": True, "ignore_eos": True}
    found = model.lm.generate(list(prompts), seed=line["seed"], **how)
    loops = sum(loop(one.data) is not None for one in found)
    low, high = wilson(loops, len(prompts))
    seconds = time.perf_counter() - begun
    counted = {"loops": loops, "share": loops / len(prompts), "low": low, "high": high}
    return {**line, **counted, "seconds": seconds}


def key(line: Line) -> tuple[object, ...]:
    """What a line is about: who has the same has the same numbers."""
    return tuple(line[name] for name in KEY)


def table(lines: Sequence[Line]) -> str:
    """A row a decoding, a column a model: the share of loops in per cent, with its interval."""
    models = list(dict.fromkeys(line["model"] for line in lines))
    found = {(line["decoding"], line["model"]): line for line in lines}
    rows = [
        table_row(decoding, *(_cell(found.get((decoding, model))) for model in models))
        for decoding in dict.fromkeys(line["decoding"] for line in lines)
    ]
    return "\n".join([table_head("decoding", *(f"{model}, loops" for model in models)), *rows])


def _cell(line: Line | None) -> str:
    if line is None:
        return "–"
    share, low, high = (round(100 * line[name]) for name in ("share", "low", "high"))
    return f"{share} % [{low}, {high}]"


def measure(given: argparse.Namespace) -> None:
    """Add a line for each model and decoding that has none."""
    device = str(choose_device(given.device, "--device"))
    prompts = prompts_of(list(texts(given.data, KINDS)), given.prompts)
    done = {key(line) for line in read_lines(given.out)}
    for model in (open_model(name, device) for name in given.models):
        for line in todo(model, prompts, given.seed):
            if key(line) not in done:
                line = written(model, prompts, line)
                append(given.out, line)
                done.add(key(line))
                shown = ("model", "decoding", "share", "low", "high", "seconds")
                print(json.dumps({name: rounded(line)[name] for name in shown}), flush=True)


def main(words: Sequence[str] | None = None) -> None:
    asked = parser("tools.loops", __doc__)
    asked.add_argument("--prompts", type=positive, default=PROMPTS, help="how many in all")
    asked.add_argument("--seed", type=int, default=0, help="of the first prompt")
    run(asked, measure, table, words)


if __name__ == "__main__":
    main()
