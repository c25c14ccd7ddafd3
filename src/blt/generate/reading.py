"""Prompts on their way into a model: read in bounded pieces, between the steps of other texts."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
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
            requests whose prompts have been read now, in the rows behind those texts; those for
            which memory ran out have ended instead.
        """
        if writing and self._owed > 0:
            return []
        begun = time.perf_counter()
        read: list[Request] = []
        for prompts in self._next(writing):
            with self._failing(prompts, writing + len(read)):
                self._read(prompts, writing)
            for prompt in prompts:
                if prompt.requests and prompt.rest == 0:  # without any it has failed
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
        """Put a prompt that is read into ``row``, and behind it copies for its other requests.

        Returns:
            requests that have a row now; the others have ended.
        """
        read: list[Request] = []
        for copy in self._copies(prompt, row):
            with self._failing([copy], row + len(read)):
                self._take(copy, row + len(read))
                read += copy.requests
        return read

    def _copies(self, prompt: Prompt, taken: int) -> list[Prompt]:
        """A prompt that is read, begun once for each of its requests."""
        prompt.requests, others = prompt.requests[:1], prompt.requests[1:]
        copies = [prompt]
        for request in others:
            copy = Prompt([request], prompt.ids, prompt.done)
            with self._failing([copy], taken):
                self.model.fork(self._row(prompt))
                self.begun.append(copy)
                copies.append(copy)
        return copies

    def _take(self, prompt: Prompt, row: int) -> None:
        """Put a prompt that is begun into ``row``, the first of those of ``begun``, and end it."""
        begun, at = self.begun, self.begun.index(prompt)
        self.model.swap(row, row + at)
        begun[0], begun[at] = begun[at], begun[0]
        begun.pop(0)

    @contextmanager
    def _failing(self, prompts: Sequence[Prompt], taken: int) -> Iterator[None]:
        """Where memory runs out, the requests of ``prompts`` end and leave no row behind.

        Args:
            taken: rows before those of ``begun``.
        """
        try:
            yield
        except (RuntimeError, MemoryError) as error:  # PyTorch's out of memory is the former
            reason = f"its prompt could not be read: {str(error) or 'out of memory'}"
            for request in [r for prompt in prompts for r in prompt.requests]:
                request.finish("error", reason)
            del self.model.texts[taken + len(self.begun) :]  # rows that are nobody's yet
            self.forget_ended()

    def _row(self, prompt: Prompt) -> int:
        return len(self.model.texts) - len(self.begun) + self.begun.index(prompt)

    def _drop(self, prompt: Prompt) -> None:
        at = self.begun.index(prompt)
        self.model.drop(self._row(prompt))
        self.begun[at] = self.begun[-1]
        self.begun.pop()
