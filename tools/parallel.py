"""How many patches are the same sentences, whatever cuts them?"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from blt import vocab
from blt.patching import Patcher
from blt.texts.pieces import segments

Lengths = Callable[[bytes], list[int]]  # bytes of each patch of a piece of text


def lengths_of(patcher: Patcher) -> Lengths:
    """How a patcher cuts a piece; BOS, a patch of its own, is not counted."""
    return lambda piece: patcher.patch(vocab.encode(piece).to(patcher.device)).lengths[1:].tolist()


def patch_lengths(lengths: Lengths, sentences: Sequence[bytes], context_bytes: int) -> list[int]:
    """Bytes of each patch of sentences that are read as one text, a line each.

    Args:
        lengths: what cuts, :func:`lengths_of` a patcher or a tokenizer's.
        context_bytes: of a piece, which is read anew from its BOS.
    """
    text = b"\n".join(sentences)
    return [length for piece in segments([text], context_bytes) for length in lengths(piece)]
