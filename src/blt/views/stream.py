"""A model's text on standard output, byte by byte, as it is written."""

from __future__ import annotations

import sys
from typing import Any

from blt import vocab
from blt.generate.sampling import stream
from blt.lm import LanguageModel


def write_stream(lm: LanguageModel, prompt: bytes, options: dict[str, Any], *, raw: bool) -> None:
    """Write the continuation of ``prompt``; on a terminal, the prompt first.

    Args:
        lm: the model.
        prompt: any bytes.
        options: for :func:`blt.generate.sampling.stream`.
        raw: bytes as they are; otherwise whole characters, invalid bytes as U+FFFD.
    """
    if raw:
        for token in stream(lm, prompt, **options):
            sys.stdout.buffer.write(bytes([token - vocab.OFFSET]))
            sys.stdout.buffer.flush()
        return
    text = vocab.Utf8Stream()
    shown = "".join(text.push(token) for token in vocab.encode(prompt, bos=False).tolist())
    if sys.stdout.isatty():
        _write(shown)
    for token in stream(lm, prompt, **options):
        _write(text.push(token))
    _write(text.finish() + "\n")


def _write(text: str) -> None:
    # A terminal that cannot show a character shows a question mark.
    encoding = sys.stdout.encoding or "utf-8"
    sys.stdout.write(text.encode(encoding, "replace").decode(encoding))
    sys.stdout.flush()
