"""Conversations, and questions with answers, in files of any kind."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as parquet

CHATS: list[dict[str, Any]] = [
    {
        "id": n,
        "messages": [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": f"How much is {n} + {n}? ü"},
            {"role": "assistant", "content": f"{n + n}"},
        ][n % 2 :],
    }
    for n in range(4)
]
PAIRS = [{"question": f"{n}?", "answer": f"{n}!\0"} for n in range(4)]
CHAT, PAIR = {"messages": "messages"}, {"prompt": "question", "completion": "answer"}


def write(folder: Path, kind: str, rows: list[dict[str, Any]]) -> str:
    """Rows in a file of a kind; its name as a source."""
    lines = "".join(json.dumps(row) + "\n" for row in rows).encode()
    if kind == "hf":
        (folder / "set/data").mkdir(parents=True)
        parquet.write_table(pa.Table.from_pylist(rows), folder / "set/data/train-0.parquet")
        return f"hf:{folder}/set"
    path = folder / f"rows.{kind}"
    if kind == "parquet":
        parquet.write_table(pa.Table.from_pylist(rows), path)
    elif kind == "json":
        path.write_text(json.dumps(rows))
    else:
        path.write_bytes(gzip.compress(lines) if kind.endswith("gz") else lines)
    return str(path)
