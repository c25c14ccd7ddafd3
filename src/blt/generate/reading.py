"""Prompts on their way into a model: read in bounded pieces, between the steps of other texts."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

from blt import vocab
from blt.generate.incremental import PIECE_BYTES, CachedModel
from blt.generate.request import Request

BUSY_BYTES = 8  # of a piece, per text that is written meanwhile: it takes as long as their step
# Far into a text, a step takes as long as its keys take from memory: more bytes share that.
FAR_PATCHES, FAR_BYTES = 1024, 40
SHORT_BYTES = 64  # of prompts that are read whole meanwhile
GPU_BYTES = 1024  # of a piece at least: launches take as long for fewer


@dataclass(eq=False)
class Prompt:
    """A prompt that is read once for all requests that have it."""

    requests: list[Request]
    ids: list[int]  # with BOS, unless it goes on with a state
    done: int = 0  # ids read

    @classmethod
    def of(cls, request: Request) -> Prompt:
        ids = request.ids
        if ids is None:
            ids = vocab.encode(request.prompt, bos=request.state is None).tolist()
        return cls([request], ids)

    def takes(self, request: Request) -> bool:
        """Is it the prompt of this request too?"""
        first = self.requests[0]
        same = (request.prompt, request.ids) == (first.prompt, first.ids)
        return request.state is None is first.state and same

    @property
    def rest(self) -> int:
        return len(self.ids) - self.done


class Reader:
    """Reads prompts into a model's rows, behind those of the texts that are written.

    Attributes:
        begun: prompts of which a part was read, in the order of their rows.
    """

    def __init__(self, model: CachedModel) -> None:
        self.model = model
        self.begun: list[Prompt] = []
        self._waiting: list[Prompt] = []
        self._turns = 0
        self._owed = 0.0  # seconds of writing before the next piece
        self._least = GPU_BYTES if model.device.type == "cuda" else 0

    @property
    def requests(self) -> list[Request]:
        return [r for prompt in (*self.begun, *self._waiting) for r in prompt.requests]

    def add(self, request: Request) -> None:
        for prompt in (*self._waiting, *self.begun):
            if prompt.takes(request):
                prompt.requests.append(request)
                return
        self._waiting.append(Prompt.of(request))

    def forget_cancelled(self) -> None:
        """Stop reading what nobody waits for any more."""
        for request in self.requests:
            request.ended()
        self.forget_ended()

    def forget_ended(self) -> None:
        for prompt in (*self.begun, *self._waiting):
            prompt.requests = [r for r in prompt.requests if r.finish_reason is None]
        self._waiting = [prompt for prompt in self._waiting if prompt.requests]
        for prompt in [prompt for prompt in self.begun if not prompt.requests]:
            self._drop(prompt)

    def drop_before(self, row: int) -> None:
        """Drop the text in ``row``, the last that is written; a prompt begun may take its row."""
        self.model.drop(row)
        self.begun[:] = [*self.begun[-1:], *self.begun[:-1]]

    def read(self, writing: int) -> list[Request]:
        """Read short prompts together, and a piece of one of the long ones.

        While texts are written it takes no more time than they do.

        Args:
            writing: texts that are written meanwhile, in the first rows.

        Returns:
            requests whose prompts have been read now, in the rows behind those texts.
        """
        if writing and self._owed > 0:
            return []
        begun = time.perf_counter()
        read: list[Request] = []
        for prompts in self._next(writing):
            rows = len(self.model.texts)
            try:
                self._read(prompts, writing)
            except (RuntimeError, MemoryError) as error:  # PyTorch's out of memory is the former
                self._fail(prompts, rows, error)
                continue
            for prompt in prompts:
                if prompt.rest == 0:
                    read += self._finish(prompt, writing + len(read))
        self._owed = time.perf_counter() - begun
        return read

    def written(self, seconds: float) -> None:
        """So long did the others write."""
        self._owed -= seconds

    def _next(self, writing: int) -> list[list[Prompt]]:
        """What to read now: prompts that are read whole, and one that is read a piece of."""
        short: list[Prompt] = []
        room = self._short(writing)
        for prompt in self._waiting:
            if prompt.requests[0].state is None and prompt.rest <= room:
                short.append(prompt)
                room -= prompt.rest
        long = [prompt for prompt in (*self.begun, *self._waiting) if prompt not in short]
        self._turns += 1
        turn = [long[self._turns % len(long)]] if long else []
        return [prompts for prompts in (short, turn) if prompts]

    def _read(self, prompts: Sequence[Prompt], writing: int) -> None:
        """Short prompts whole, or a piece of one."""
        first, state = prompts[0], prompts[0].requests[0].state
        if first not in self.begun and state is None:
            sizes = [min(prompt.rest, self._short(writing)) for prompt in prompts]
            self.model.prefill([p.ids[:n] for p, n in zip(prompts, sizes, strict=True)])
            for prompt, size in zip(prompts, sizes, strict=True):
                self._begin(prompt)
                prompt.done = size
            return
        if first not in self.begun and state is not None:
            self.model.load(state)
            self._begin(first)
        row = self._row(first)
        part = first.ids[first.done : first.done + self._piece(row, writing)]
        self.model.read_on(row, part)
        first.done += len(part)

    def _short(self, writing: int) -> int:
        """Bytes of prompts that are read in one packed forward."""
        least = max(SHORT_BYTES, self._least)
        return max(least, BUSY_BYTES * writing) if writing else PIECE_BYTES

    def _piece(self, row: int, writing: int) -> int:
        """Bytes of the next piece of a text."""
        patches = self.model.texts[row].patches
        far = patches is not None and patches.length > FAR_PATCHES
        least = max(FAR_BYTES if far else 0, self._least)
        return max(least, BUSY_BYTES * writing) if writing else PIECE_BYTES

    def _begin(self, prompt: Prompt) -> None:
        self._waiting.remove(prompt)
        self.begun.append(prompt)

    def _finish(self, prompt: Prompt, row: int) -> list[Request]:
        """Put a prompt that is read into ``row``, and behind it copies for its other requests."""
        model, begun, at = self.model, self.begun, self.begun.index(prompt)
        model.swap(row, row + at)  # the rows from `row` on are those of `begun`
        begun[0], begun[at] = begun[at], begun[0]
        begun.pop(0)
        for copy, _ in enumerate(prompt.requests[1:], row + 1):
            model.fork(row)
            model.swap(copy, len(model.texts) - 1)
            begun[:] = [*begun[1:], *begun[:1]]
        return prompt.requests

    def _fail(self, prompts: Sequence[Prompt], rows: int, error: Exception) -> None:
        """End the requests of prompts that could not be read; there were so many rows before."""
        for prompt in prompts:
            for request in prompt.requests:
                request.finish("error", f"its prompt could not be read: {error}")
        del self.model.texts[rows:]
        self.forget_ended()

    def _row(self, prompt: Prompt) -> int:
        return len(self.model.texts) - len(self.begun) + self.begun.index(prompt)

    def _drop(self, prompt: Prompt) -> None:
        at = self.begun.index(prompt)
        self.model.drop(self._row(prompt))
        self.begun[at] = self.begun[-1]
        self.begun.pop()
