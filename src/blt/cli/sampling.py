"""The options that say how each byte is chosen, of every verb that writes."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Draws:
    """How each byte is chosen."""

    max_bytes: int = 256
    """How many bytes to write at most."""
    temperature: float = 0.8
    """0 always takes the most likely byte; higher is more varied."""
    top_k: int | None = None
    """Choose among the k most likely bytes only."""
    top_p: float = 1.0
    """Choose among the likeliest bytes that have this probability together."""
    min_p: float = 0.0
    """Choose among bytes at least this likely, relative to the likeliest."""
    repetition_penalty: float = 1.0
    """Above 1 makes what occurs in the text less likely."""
    seed: int = 0
    """The same seed writes the same text; prompt i, or answer i, has seed + i."""
