"""What ``blt generate`` shows: text as it is written, plain or in patches, or JSON lines."""

from __future__ import annotations

import base64
import json
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from rich.text import Text

from blt.cli.generate import Output
from blt.cli.output import stream
from blt.errors import UserError
from blt.generate import Engine, Generation, Handle, Sampling
from blt.lm import BLT, LanguageModel
from blt.report.console import Console
from blt.report.terminal import ALTERNATING, SEPARATOR
from blt.texts.glyphs import glyphs
from blt.vocab import whole

Writer = Callable[[bytes, Handle], None]  # a prompt and its continuation, as it comes


def write_all(engine: Engine, prompts: Sequence[bytes], sampling: Sampling, writer: Writer) -> None:
    """Write the continuations of all prompts, in their order; prompt i has seed + i.

    Raises:
        UserError: some ended with an error, and are not or only half there; says how many, and why.
    """
    waiting = [
        (prompt, engine.submit(prompt, replace(sampling, seed=sampling.seed + index)))
        for index, prompt in enumerate(prompts)
    ]
    for prompt, handle in waiting:
        writer(prompt, handle)
    failed = [error for _, handle in waiting if (error := handle.result().error) is not None]
    if failed:
        raise UserError(
            f"{len(failed)} of {len(waiting)} texts not written to the end: {failed[0]}"
        )


def writer_of(output: Output, lm: LanguageModel, prompts: int) -> Writer:
    """The writer that options choose, for so many prompts."""
    if output.json:
        return write_json
    writer: Writer = write_text
    if output.show_patches or output.raw:
        writer = patches_of(lm) if output.show_patches else write_raw
    return headed(writer) if prompts > 1 else writer


def headed(writer: Writer) -> Writer:
    """The same writer, with a line before each text that says which prompt it continues."""

    def write(prompt: bytes, handle: Handle) -> None:
        stream(f"==> {prompt.decode('utf-8', 'replace')} <==\n")
        writer(prompt, handle)

    return write


def write_text(prompt: bytes, handle: Handle) -> None:
    """Whole characters, bytes that are none as U+FFFD; on a terminal, the prompt first."""
    if sys.stdout.isatty():
        # The text has the character that the prompt has begun.
        stream(whole(prompt).decode("utf-8", "replace"))
    for text in handle.text():
        stream(text)
    stream("\n")


def write_raw(_: bytes, handle: Handle) -> None:
    """The bytes as they are."""
    for piece in handle:
        sys.stdout.buffer.write(piece)
        sys.stdout.buffer.flush()


def write_json(prompt: bytes, handle: Handle) -> None:
    """One JSON object on one line; ``base64`` is exact, ``text`` has U+FFFD for invalid bytes."""
    print(json.dumps(to_json(replace(handle.result(), prompt=prompt))), flush=True)


def to_json(result: Generation) -> dict[str, Any]:
    """Plain data."""
    return {
        "prompt": result.prompt.decode("utf-8", "replace"),
        "text": result.text,
        "base64": base64.b64encode(result.data).decode(),
        "finish_reason": result.finish_reason,
        "error": result.error,
        "logprobs": result.logprobs,
        "patch_lengths": [len(patch) for patch in result.patches],
        "drafted": result.drafted,
        "accepted": result.accepted,
    }


def patches_of(lm: LanguageModel) -> Writer:
    """A writer of patches as they form, those of the prompt first.

    They are coloured in turns, without colours separated by ``│``; where there are colours, the
    prompt's are underlined.
    """

    def write(prompt: bytes, handle: Handle) -> None:
        painter = _Painter(Console(highlight=False))
        # The first position is BOS, a patch of its own.
        cut = lm.patch(prompt).starts[1:].tolist() if isinstance(lm, BLT) else [True] * len(prompt)
        painter.style = "underline"
        for byte, begins in zip(prompt, cut, strict=True):
            painter.push(byte, begins)
        painter.flush()
        painter.style = ""
        for piece, starts in handle.patches():
            for byte, begins in zip(piece, starts, strict=True):
                painter.push(byte, begins)
        painter.flush()
        stream("\n")

    return write


class _Painter:
    """Prints bytes once they are whole characters, or cannot become one."""

    def __init__(self, console: Console) -> None:
        self.console, self.index, self.pending = console, 0, b""
        self.colour = console.color_system is not None and not console.no_color
        self.begins = True  # has nothing of this patch been printed?
        self.style = ""  # besides the colour

    def push(self, byte: int, begins: bool) -> None:
        if begins:
            self.flush()
            self.index += 1
            self.begins = True
        self.pending += bytes([byte])
        if _whole(self.pending):
            self.flush()

    def flush(self) -> None:
        text = Text(end="")
        if self.pending and self.begins and not self.colour and self.index > 1:
            text.append(SEPARATOR)
        for glyph in glyphs(self.pending, [True] + [False] * len(self.pending)):
            style = f"{ALTERNATING[self.index % 2]} {self.style}" if self.colour else ""
            text.append(glyph.text, style)
            text.append("\n" if glyph.is_newline else "")
        self.begins = self.begins and not self.pending
        self.pending = b""
        self.console.print(text, end="", soft_wrap=True)


def _whole(data: bytes) -> bool:
    """False while more bytes could make a character of it."""
    try:
        data.decode()
    except UnicodeDecodeError as error:
        return "unexpected end" not in error.reason
    return True


class Clock:
    """Adds up what was written, for a line of statistics."""

    def __init__(self, engine: Engine) -> None:
        self.engine, self.begun = engine, time.perf_counter()
        self.results: list[Generation] = []

    def watch(self, writer: Writer) -> Writer:
        """The same writer, with its results counted."""

        def write(prompt: bytes, handle: Handle) -> None:
            writer(prompt, handle)
            self.results.append(handle.result())

        return write

    def line(self) -> str:
        """Bytes per second, bytes per patch and, with drafts, how many were accepted."""
        seconds = time.perf_counter() - self.begun
        size = sum(len(result.data) for result in self.results)
        patches = sum(sum(result.starts) for result in self.results)
        parts = [f"{size} bytes in {seconds:.2f} s: {size / seconds:.0f} bytes/s with reading"]
        if patches:
            parts.append(f"{size / patches:.2f} bytes per patch")
        drafted = sum(result.drafted for result in self.results)
        if drafted:
            accepted = sum(result.accepted for result in self.results)
            parts.append(f"{accepted / drafted:.0%} of {drafted} drafted bytes accepted")
        return " · ".join(parts)
