"""From bytes of the engine to parts of OpenAI's choices: text in whole characters, tokens."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from blt.generate.request import Piece
from blt.generate.sampling import END
from blt.serve.asked import Asked
from blt.serve.schemas import SPECIALS, BytesOut, Logprobs, encode
from blt.vocab import EOS, OFFSET, Utf8Stream

REASONS = {"eos": "stop", "stop": "stop", "length": "length"}
DRAFTED = {None: None, True: "accepted", False: "rejected-replacement"}


def token(byte: int) -> str:
    """A byte as OpenAI writes tokens that are no text of their own; END as EOS."""
    if byte == END:
        return SPECIALS[EOS]
    return chr(byte) if byte < 128 else f"bytes:\\x{byte:02x}"


@dataclass(frozen=True)
class Part:
    """What some bytes add to a choice."""

    index: int
    text: str
    logprobs: Any  # as the API has them; None: they are not asked for
    finish_reason: Any  # stop or length: nothing follows; else None
    blt: BytesOut | None

    @property
    def is_empty(self) -> bool:
        """Does it tell nothing yet?"""
        return not (self.text or self.finish_reason or self.logprobs or self.blt)


class Writer:
    """One choice in the making; tokens are as ``/v1/completions`` has them."""

    def __init__(self, index: int, asked: Asked, drafts: bool) -> None:
        self.index, self.alternatives = index, asked.alternatives
        self.patches, self.drafts = asked.request.patches, drafts
        self._decoder = Utf8Stream()
        self._characters = 0  # so far

    def goes_on(self, begun: bytes) -> None:
        """The text goes on with a character that its prompt, which is not echoed, has begun."""
        self._decoder = Utf8Stream(begun)

    def write(self, *pieces: Piece) -> Part:
        """What some more bytes add; a piece with a finish reason is the last."""
        text, offsets = "", []
        for byte in b"".join(piece.data for piece in pieces):
            offsets.append(self._characters + len(text))
            text += self._decoder.push(byte + OFFSET)
        reason = pieces[-1].finish_reason
        if reason is not None:
            text += self._decoder.finish()
        self._characters += len(text)
        return Part(
            index=self.index,
            text=text,
            logprobs=None if self.alternatives is None else self.tokens(pieces, offsets),
            finish_reason=None if reason is None else REASONS[reason],
            blt=self._bytes(pieces) if self.patches else None,
        )

    def tokens(self, pieces: tuple[Piece, ...], offsets: list[int]) -> Any:
        """An entry for each id: a special one in front, bytes, and what ended the text unseen.

        Clients tell the prompt's entries from what was written by their number.
        """
        found = [entry for piece in pieces for entry in _entries(piece)]
        offsets = [*offsets, *[self._characters] * len(pieces[-1].end)]
        if pieces[0].special is not None:
            offsets = [0, *offsets]
        return Logprobs(
            tokens=[name for name, _, _ in found],
            token_logprobs=[nats for _, nats, _ in found],
            top_logprobs=[top | {name: nats} for name, nats, top in found]
            if self.alternatives
            else None,
            text_offset=offsets,
        )

    def _bytes(self, pieces: tuple[Piece, ...]) -> BytesOut:
        kept: list[Any] = [DRAFTED[kept] for piece in pieces for kept in piece.kept]
        return BytesOut(
            bytes=encode(b"".join(piece.data for piece in pieces)),
            starts=[starts for piece in pieces for starts in piece.starts],
            logprobs=[nats for piece in pieces for nats in piece.logprobs],
            top=[
                [(byte, nats) for byte, nats in top if byte != END]
                for piece in pieces
                for top in piece.top
            ],
            drafted=kept if self.drafts else None,
        )


def _entries(piece: Piece) -> Iterator[tuple[str, float, dict[str, float]]]:
    """Token, nats, and likely tokens of each of its ids."""
    if piece.special is not None:
        yield piece.special, 0.0, {}
    for byte, nats, top in zip(piece.data, piece.logprobs, piece.top, strict=True):
        yield token(byte), nats, {token(likely): p for likely, p in top}
    for byte, nats, top in piece.end:
        yield token(byte), nats, {token(likely): p for likely, p in top}
