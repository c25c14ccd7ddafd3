"""Byte ids: the whole vocabulary of a byte-level model, and the way back to text."""

from __future__ import annotations

import codecs

import torch
from torch import Tensor

from blt.errors import UserError

OFFSET = 4  # byte b has id b + OFFSET
BOE, BOS, EOS, BPE = 0, 1, 2, 3
PAD = -1  # marks "no target"; never reaches an embedding
VOCAB_SIZE = 256 + OFFSET

Text = str | bytes | bytearray | memoryview


def to_bytes(text: Text, name: str = "a text") -> bytes:
    """Bytes of ``text``; lone surrogates in a ``str`` (undecodable file names) keep their bytes.

    Raises:
        UserError: neither ``str`` nor bytes-like, or a surrogate that stands for no byte.
    """
    if not isinstance(text, Text):
        raise UserError(f"{name} must be str or bytes, got {type(text).__name__}")
    if isinstance(text, str):
        try:
            return text.encode("utf-8", "surrogateescape")
        except UnicodeEncodeError as error:
            at, char = error.start, text[error.start]
            raise UserError(
                f"{name}: {char!r} at character {at} is half a surrogate pair; give bytes, or "
                "encode it with 'surrogatepass'"
            ) from None
    return bytes(text)


def encode(text: Text, *, bos: bool = True, eos: bool = False) -> Tensor:
    """Ids of ``text``  # [T] int64, with BOS in front and EOS behind if asked for."""
    data = bytearray(to_bytes(text))
    ids = torch.empty(len(data) + bos + eos, dtype=torch.int64, device="cpu")
    if data:
        ids[bos : bos + len(data)] = torch.frombuffer(data, dtype=torch.uint8).to(torch.int64)
        ids += OFFSET
    if bos:
        ids[0] = BOS
    if eos:
        ids[-1] = EOS
    return ids


def decode(ids: Tensor) -> bytes:
    """Bytes of ``ids`` [T]; special ids carry no byte and are left out."""
    ids = ids[ids >= OFFSET] - OFFSET
    return bytes(ids.to(torch.uint8).tolist())


def check_ids(ids: Tensor) -> Tensor:
    """Return 1-D int64 ``ids`` as they are.

    Raises:
        ValueError: not 1-D, not int64, or an id outside 0..259; names the first bad position.
    """
    if not isinstance(ids, Tensor) or ids.dim() != 1 or ids.dtype != torch.int64:
        what = f"{ids.dtype} {tuple(ids.shape)}" if isinstance(ids, Tensor) else type(ids).__name__
        raise ValueError(f"ids must be a 1-D LongTensor, got {what}; use blt.encode(text)")
    bad = ((ids < 0) | (ids >= VOCAB_SIZE)).nonzero()
    if len(bad):
        at = int(bad[0])
        raise ValueError(
            f"id {int(ids[at])} at position {at} is outside 0..{VOCAB_SIZE - 1} "
            f"(byte b has id b + {OFFSET}; use blt.encode(text))"
        )
    return ids


def unfinished(data: bytes) -> bytes:
    """The character that the end of ``data`` begins and does not finish: 0 to 3 bytes."""
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    decoder.decode(data[-3:])
    return decoder.getstate()[0]


def whole(data: bytes) -> bytes:
    """Without the character that its end begins and does not finish."""
    return data.removesuffix(unfinished(data))


class Utf8Stream:
    """Turns a stream of ids into text that only ever grows by whole UTF-8 characters.

    Args:
        begun: an unfinished character before the text. It is part of it if the text's first byte
            goes on with it; else it is none of the text's business.
    """

    def __init__(self, begun: bytes = b"") -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._begun = begun

    def push(self, token_id: int) -> str:
        """Text completed by this id; empty while a character is incomplete."""
        return "" if token_id < OFFSET else self.write(bytes([token_id - OFFSET]))

    def write(self, data: bytes) -> str:
        """Text completed by some bytes."""
        if self._begun and data:
            begun, self._begun = self._begun, b""
            data = begun + data if _goes_on(begun + data[:1]) else data
        return self._decoder.decode(data)

    def finish(self) -> str:
        """Whatever is left, an incomplete character as U+FFFD."""
        return self._decoder.decode(b"", final=True)


def _goes_on(data: bytes) -> bool:
    """Is it a character, or the beginning of one?"""
    try:
        codecs.getincrementaldecoder("utf-8")().decode(data)
    except UnicodeDecodeError:
        return False
    return True
