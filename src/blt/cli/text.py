"""Verbs that work on text: cut it, prepare it for training."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Literal

from tyro.conf import Positional

from blt.errors import UserError
from blt.views.console import say


def patch(
    text: Positional[str | None] = None,
    /,
    *,
    file: Path | None = None,
    rule: str | None = None,
    threshold: float | None = None,
    threshold_add: float | None = None,
    stride: int | None = None,
    max_patch_length: int | None = None,
    newline_reset: bool = False,
    target: float | None = None,
    model: Path | None = None,
    tokenizer: Path | None = None,
    table: Path | None = None,
    make_table: Path | None = None,
    order: int = 2,
    json: bool = False,
) -> None:
    """Cut text into patches, and show where and why.

    Args:
        text: Text to cut. Left out: --file, or what comes through a pipe.
        file: Cut the bytes of this file; any bytes will do.
        rule: entropy, entropy-monotonic, entropy-combined, space, static, byte, lookup or bpe.
        threshold: Entropy rules: start a patch where the next byte's entropy is above this (nats).
        threshold_add: entropy-combined: the entropy must also rise by more than this (nats).
        stride: static: bytes per patch.
        max_patch_length: Split longer patches into runs of this many bytes.
        newline_reset: The entropy model forgets everything after each newline.
        target: Choose the threshold that gives patches of so many bytes on average in this text.
        model: Folder of a BLT or byte model to cut with, instead of the one inside the package.
        tokenizer: bpe: a tokenizer.json.
        table: lookup: a table written by --make-table.
        make_table: Write a lookup table learned from this text to this file; cut nothing.
        order: --make-table: how many of the last bytes the table looks at, 1 to 3.
        json: Print one JSON object: entropies in nats, patches as text and exactly in base64.
    """
    from blt.checkpoint.pretrained import patcher_of
    from blt.views.cut import print_cut, print_json

    data = _read_input(text, file)
    parameters = {
        "threshold": threshold,
        "threshold_add": threshold_add,
        "stride": stride,
        "max_patch_length": max_patch_length,
        "newline_reset": newline_reset or None,
    }
    patcher = patcher_of(rule, parameters, model=model, table=table, tokenizer=tokenizer)
    if target is not None:
        whole = {"context_bytes": max(1, len(data)), "sample_bytes": None}
        patcher = patcher.calibrated([data], target, **whole)
    if make_table is not None:
        say(patcher.write_table(data, make_table, order))
    else:
        (print_json if json else print_cut)(patcher.cut(data))


def prepare(
    sources: Positional[tuple[str, ...]],
    /,
    *,
    out: Path,
    entropy_model: str | None = None,
    newline_reset: bool = False,
    precision: Literal["float32", "bfloat16"] = "float32",
    heldout: float = 0.01,
    segment_bytes: int = 8192,
    shard_mb: int = 64,
    max_broken: int = 100,
    engine: Literal["local", "ray"] = "local",
    workers: int = 2,
) -> None:
    """Turn text into shards to train on: read once, divided, entropies computed ahead.

    Run again after a kill, it goes on where it was.

    Args:
        sources: Files, folders, globs, hf:NAME[@SPLIT] or builtin:python.
        out: Folder to make.
        entropy_model: Store this model's entropies: its folder, or "pretrained".
        newline_reset: The entropy model forgets everything after each newline.
        precision: Of the entropy model's matrix products.
        heldout: Share of documents that is kept from training, by a hash of their content; of those
            of a megabyte or more, and of a handful of long ones, their end.
        segment_bytes: Longest run of bytes that can be trained on at once.
        shard_mb: Megabytes of text in a shard.
        max_broken: Lines without a document that are left out of one file before it is an error.
        engine: local, or ray: on the Ray cluster of RAY_ADDRESS, or one started here.
        workers: ray: so many files at the same time.
    """
    from blt.data.prepare import Options
    from blt.data.prepare import prepare as run
    from blt.views.prepare import preparing, print_manifest

    options = Options(
        sources,
        heldout=heldout,
        entropy_model=entropy_model,
        newline_reset=newline_reset,
        precision=precision,
        segment_bytes=segment_bytes,
        shard_bytes=shard_mb * 2**20,
        max_broken=max_broken,
    )
    with preparing() as show:
        ray_workers = workers if engine == "ray" else None
        manifest = run(out, options, ray_workers=ray_workers, on_progress=show)
    print_manifest(out, manifest)


def _read_input(text: str | None, file: Path | None) -> bytes:
    """The bytes to cut, from the one place that was named."""
    if text is not None and file is not None:
        raise UserError("both a text and --file are given; choose one")
    if file is not None:
        return file.read_bytes()
    if text is not None:
        return os.fsencode(text)
    if sys.stdin.isatty():
        raise UserError('no text to cut; try: blt patch "some text", --file FILE, or a pipe')
    return sys.stdin.buffer.read()
