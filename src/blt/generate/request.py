"""One continuation that somebody asked for: what it holds, where it ends, how it is read."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal

import torch

from blt import vocab
from blt.generate.incremental import State
from blt.generate.numbers import Numbers
from blt.generate.sampling import END, Chooser, Sampling

FinishReason = Literal["eos", "stop", "length", "cancelled", "error"]
Ending = tuple[int, float, list[tuple[int, float]]]  # byte or END; nats; likeliest bytes or END


@dataclass(frozen=True, repr=False)
class Generation:
    """A finished continuation."""

    data: bytes
    finish_reason: FinishReason
    logprobs: list[float]  # of each byte, in nats, under the model's own distribution
    starts: list[bool]  # does this byte start a patch?
    prompt: bytes
    drafted: int = 0  # bytes drafted and verified, of which
    accepted: int = 0  # were kept
    error: str | None = None  # why finish_reason is "error"
    prompt_patches: int = 0  # patches that start in the prompt
    begun: bytes = b""  # of a character, by the end of the prompt

    @property
    def text(self) -> str:
        """As text; bytes that are not UTF-8 become U+FFFD.

        A character that the prompt has begun is part of it, once the first bytes go on with it. One
        that was not finished because the text was cancelled is none.
        """
        stream = vocab.Utf8Stream(self.begun)
        return stream.write(self.data) + _rest_of(stream, self.finish_reason)

    def __repr__(self) -> str:
        return f"Generation({self.data!r}, finish_reason={self.finish_reason!r})"

    @property
    def patches(self) -> list[bytes]:
        """The bytes, patch by patch; the first may belong to a patch begun in the prompt."""
        edges = [0, *(i for i, starts in enumerate(self.starts) if starts and i), len(self.data)]
        return [self.data[a:b] for a, b in itertools.pairwise(edges) if a < b]


@dataclass(frozen=True, repr=False)
class Piece:
    """Some bytes of a text, and what is known of each."""

    data: bytes
    logprobs: list[float] = field(default_factory=list)  # nats
    starts: list[bool] = field(default_factory=list)  # does it start a patch?
    kept: list[bool | None] = field(default_factory=list)  # a draft; in place of one; not drafted
    top: list[list[tuple[int, float]]] = field(default_factory=list)  # likeliest bytes or END, nats
    finish_reason: FinishReason | None = None  # set: nothing follows
    end: Sequence[Ending] = ()  # what ended the text and is none of it: EOS, or a stop string
    special: str | None = None  # name of an id before the bytes that is none of them

    def __repr__(self) -> str:
        return f"Piece({self.data!r}, finish_reason={self.finish_reason!r})"


@dataclass
class Request:
    """A continuation in the making. The engine writes; handles read."""

    prompt: bytes
    sampling: Sampling
    state: State | None = None  # what was read before the prompt
    draft_bytes: int = 0
    alternatives: int = 0  # so many of the likeliest bytes (and END) are noted at each byte
    memory: int = 0  # bytes reserved for it
    working: int = 0  # bytes that reading its prompt takes besides, a piece at a time
    ids: list[int] | None = None  # of the prompt, where they are more than BOS and its bytes
    data: bytearray = field(default_factory=bytearray)
    logprobs: list[float] = field(default_factory=list)
    starts: list[bool] = field(default_factory=list)
    kept: list[bool | None] = field(default_factory=list)  # see Piece
    top: list[list[tuple[int, float]]] = field(default_factory=list)
    end: Sequence[Ending] = ()  # see Piece
    prompt_patches: int = 0
    visible: int = 0  # bytes that are certainly not part of a stop string
    token: int = vocab.BOS  # chosen last, not read by the model yet
    finish_reason: FinishReason | None = None
    error: str | None = None
    cancelled: bool = False
    drafted: int = 0
    accepted: int = 0

    def __post_init__(self) -> None:
        before = (
            b""
            if self.state is None
            else vocab.decode(torch.tensor(self.state.text.ids, dtype=torch.int64, device="cpu"))
        )
        self.begun = begun_by(before + self.prompt if self.ids is None else self.ids)
        self.chooser = Chooser.begin(self.sampling, before + self.prompt, self.begun)
        self.generator = Numbers(self.sampling.seed)
        if self.sampling.max_bytes == 0:
            self.finish_reason = "length"

    def push(
        self,
        token_id: int,
        logprob: float,
        starts: bool,
        kept: bool | None,
        top: list[tuple[int, float]],
    ) -> None:
        """One more id; ends the request where it must end."""
        self.token = token_id
        if token_id == vocab.EOS:
            self.end = [(END, logprob, top)]
            self.finish("eos")
            return
        self.chooser = self.chooser.after(token_id)
        self.data.append(token_id - vocab.OFFSET)
        self.logprobs.append(logprob)
        self.starts.append(starts)
        self.kept.append(kept)
        self.top.append(top)
        ends = [len(stop) for stop in self.sampling.stop if self.data.endswith(stop)]
        if ends:
            self._cut(len(self.data) - max(ends))
            self.finish("stop")
            return
        self.visible = len(self.data) - self._held_back()
        if len(self.data) >= self.sampling.max_bytes:
            self.finish("length")

    def finish(self, reason: FinishReason, error: str | None = None) -> None:
        self.visible = len(self.data)
        self.error = error
        self.finish_reason = reason

    def ended(self) -> bool:
        """Whether nothing follows; who was cancelled ends here."""
        if self.cancelled and self.finish_reason is None:
            self.finish("cancelled")
        return self.finish_reason is not None

    def _cut(self, length: int) -> None:
        of_end = (self.data[length:], self.logprobs[length:], self.top[length:])
        self.end = list(zip(*of_end, strict=True))
        for of_bytes in (self.data, self.logprobs, self.starts, self.kept, self.top):
            del of_bytes[length:]

    def _held_back(self) -> int:
        """Bytes at the end that a stop string may begin with."""
        if not self.sampling.stop:
            return 0
        longest = max(map(len, self.sampling.stop)) - 1
        for size in range(min(longest, len(self.data)), 0, -1):
            tail = bytes(self.data[-size:])
            if any(stop.startswith(tail) for stop in self.sampling.stop):
                return size
        return 0

    def generation(self) -> Generation:
        assert self.finish_reason is not None
        return Generation(
            bytes(self.data),
            self.finish_reason,
            self.logprobs,
            self.starts,
            self.prompt,
            self.drafted,
            self.accepted,
            self.error,
            self.prompt_patches,
            self.begun,
        )


def begun_by(before: bytes | list[int]) -> bytes:
    """The character that bytes, or ids, begin and do not finish; a special id ends every one."""
    if isinstance(before, bytes):
        return vocab.unfinished(before)
    last = before[-3:]
    while any(token < vocab.OFFSET for token in last):
        last = last[1:]
    return vocab.unfinished(bytes(token - vocab.OFFSET for token in last))


def _rest_of(stream: vocab.Utf8Stream, reason: FinishReason | None) -> str:
    """The end of a text whose last character may be unfinished."""
    return "" if reason in ("cancelled", "error") else stream.finish()


class Handle:
    """Somebody's hold on a request: read its bytes as they come, wait for all, or cancel it."""

    def __init__(self, request: Request, progress: Callable[[], None]) -> None:
        self._request, self._progress = request, progress

    @property
    def finished(self) -> bool:
        return self._request.finish_reason is not None

    @property
    def begun(self) -> bytes:
        """The character that the prompt has begun and not finished."""
        return self._request.begun

    def cancel(self) -> None:
        """End it at the next byte; what was written stays readable."""
        self._request.cancelled = True

    def piece(self, start: int = 0) -> Piece:
        """What there is from byte ``start`` on, without waiting."""
        request = self._request
        finish_reason = request.finish_reason  # read before the bytes: they are complete once set
        part = slice(start, request.visible)
        return Piece(
            bytes(request.data[part]),
            request.logprobs[part],
            request.starts[part],
            request.kept[part],
            request.top[part],
            finish_reason,
            () if finish_reason is None else request.end,
        )

    @property
    def available(self) -> int:
        """Bytes that can be read."""
        return self._request.visible

    def __iter__(self) -> Iterator[bytes]:
        """New bytes as they come, never any of a stop string; ends when the request has ended."""
        return (piece for piece, _ in self.patches())

    def patches(self) -> Iterator[tuple[bytes, list[bool]]]:
        """New bytes as they come, and which of them start a patch."""
        shown = 0
        while True:
            piece = self.piece(shown)
            if piece.data:
                yield piece.data, piece.starts
                shown += len(piece.data)
            elif piece.finish_reason is not None:
                return
            else:
                self._progress()

    def text(self) -> Iterator[str]:
        """New text as it comes, in whole characters: that of :attr:`Generation.text`."""
        decoder = vocab.Utf8Stream(self.begun)
        for piece in self:
            if text := decoder.write(piece):
                yield text
        if rest := _rest_of(decoder, self._request.finish_reason):
            yield rest

    def result(self, timeout: float | None = None) -> Generation:
        """Wait for the end.

        Raises:
            TimeoutError: it has not ended after ``timeout`` seconds; it goes on.
        """
        begun = time.monotonic()
        while not self.finished:
            if timeout is not None and time.monotonic() - begun > timeout:
                raise TimeoutError(f"not finished after {timeout} s; cancel() it, or wait on")
            self._progress()
        return self._request.generation()

    def __repr__(self) -> str:
        state = self._request.finish_reason or "unfinished"
        return f"Handle({state}, {len(self._request.data)} bytes)"
