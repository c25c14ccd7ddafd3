"""The model behind the routes: one engine, one analysis at a time, and who waits for them."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from torch import Tensor

from blt import vocab
from blt.chat import ChatTemplate
from blt.checkpoint.pretrained import PRETRAINED
from blt.generate import ClosedError, Engine, Handle, RefusedError
from blt.generate.request import Piece
from blt.lm import BLT, LanguageModel
from blt.serve.analysis import Analysis
from blt.serve.asked import Asked
from blt.serve.bridge import Bridge
from blt.serve.errors import APIError, engine_failed
from blt.serve.metrics import Metrics
from blt.serve.pace import Pace
from blt.serve.schemas import Usage
from blt.serve.settings import Settings

T = TypeVar("T")


class Service:
    """What routes call.

    Raises:
        UserError: a model that cannot be written with byte by byte, or a chat template that fails.
    """

    def __init__(self, lm: LanguageModel, settings: Settings) -> None:
        self.lm, self.settings, self.limits = lm, settings, settings.limits
        self.name = settings.name or name_of(settings.model)
        self.analysis = Analysis.of(lm)
        self.template = _template(lm, settings)
        self.metrics = Metrics()
        self.engine = Engine(
            lm,
            max_batch=settings.max_batch,
            max_queue=settings.max_queue,
            memory_budget=settings.memory_budget,
            precision=settings.precision,
            draft_bytes=settings.draft_bytes,
        )
        self.bridge: Bridge  # once there is an event loop
        self._one_at_a_time = asyncio.Semaphore(1)
        self._analyses = 0
        self.pace, self._pace_of_analyses = Pace(settings.max_batch), Pace(1)
        gauge = self.metrics.gauge
        gauge("waiting", "Choices in the queue", lambda: self.engine.waiting)
        gauge("running", "Choices being written", lambda: self.engine.running)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """The engine's thread is at work."""
        self.bridge = Bridge(self.engine)
        with self.engine:
            yield
            # Nobody is left to read what is still being written.
            await asyncio.to_thread(self.engine.close, cancel=True)

    async def analyse(self, work: Callable[[], T]) -> T:
        """Run a forward pass in a thread, after those that came before.

        Whoever leaves while it waits gives up its place; what has begun keeps it to its end.

        Raises:
            APIError: 429, too many are waiting.
        """
        if self._analyses >= self.settings.max_queue:
            message = "too many texts are waiting; try again later"
            again = self._pace_of_analyses.retry_after(self._analyses)
            raise APIError(429, message, code="queue_full", retry_after=again)
        self._analyses += 1
        try:
            await self._one_at_a_time.acquire()
        except BaseException:
            self._analyses -= 1
            raise
        thread = asyncio.create_task(asyncio.to_thread(work))
        thread.add_done_callback(partial(self._analysed, time.monotonic()))
        await asyncio.wait({thread})  # which, unlike await, does not cancel it with the request
        return thread.result()

    def _analysed(self, begun: float, thread: asyncio.Task[Any]) -> None:
        """A forward pass has ended, whether or not somebody waits for it: the next may begin."""
        self._one_at_a_time.release()
        self._analyses -= 1
        # To ask for the exception is to have seen it: asyncio warns of those that nobody asks for.
        if not thread.cancelled() and thread.exception() is None:
            self._pace_of_analyses.ended(time.monotonic() - begun)

    def submit(self, asked: Asked) -> list[Handle]:
        """Queue all choices of a request, or none; choice i has seed + i.

        Raises:
            APIError: 429, or 503 if the engine has failed.
            UserError: a parameter that is impossible for this model.
        """
        if not self.engine.alive:
            raise engine_failed()
        request = asked.request
        seed = secrets.randbits(32) if request.seed is None else request.seed
        handles: list[Handle] = []
        prompts = [prompt for prompt in asked.prompts for _ in range(asked.n)]
        try:
            for index, prompt in enumerate(prompts):
                handles.append(
                    self.engine.submit(
                        prompt,
                        asked.sampling(seed + index),
                        draft_bytes=request.draft_bytes,
                        alternatives=asked.alternatives or 0,
                    )
                )
        except RefusedError:
            _cancel(handles)
            message = "the queue is full; try again later"
            again = self.pace.retry_after(self.engine.waiting)
            raise APIError(429, message, code="queue_full", retry_after=again) from None
        except ClosedError:  # since it was asked above
            _cancel(handles)
            raise engine_failed() from None
        except BaseException:
            _cancel(handles)
            raise
        return handles

    async def read_prompts(self, asked: Asked) -> list[Piece]:
        """The prompts; scored and cut if ``echo`` shows that, or the engine does not read them."""
        prompts = [vocab.decode(p) if isinstance(p, Tensor) else p for p in asked.prompts]
        shown = asked.echo and (asked.alternatives is not None or asked.request.patches)
        if not shown and asked.request.most_bytes != 0:
            return [Piece(prompt) for prompt in prompts]
        read = partial(self.analysis.piece, alternatives=asked.alternatives or 0)
        pieces = [await self.analyse(partial(read, prompt)) for prompt in prompts]
        both = zip(pieces, asked.specials, strict=True)
        return [replace(piece, special=special) for piece, special in both]

    def usage(self, asked: Asked, prompts: list[Piece], handles: list[Handle]) -> Usage:
        """Token counts of choices that have ended; a prompt with many choices counts once."""
        results = [handle.result() for handle in handles]
        if asked.request.most_bytes == 0:  # the engine has read nothing
            prompt_patches = sum(sum(prompt.starts) for prompt in prompts)
        else:
            prompt_patches = sum(result.prompt_patches for result in results[:: asked.n])
        read = sum(asked.sizes)
        written = sum(len(result.data) for result in results)
        return Usage(
            prompt_tokens=read,
            completion_tokens=written,
            total_tokens=read + written,
            prompt_patches=prompt_patches,
            completion_patches=sum(sum(result.starts) for result in results),
        )

    def count(self, asked: Asked, handles: list[Handle]) -> None:
        """Tell the metrics of choices, whether they have ended or were cancelled."""
        if handles:  # none: it was refused, and nothing was read
            self.metrics.prompt_bytes.inc(sum(asked.sizes))
        for piece in (handle.piece() for handle in handles):
            self.metrics.completion_bytes.inc(len(piece.data))
            self.metrics.completion_patches.inc(sum(piece.starts))

    @property
    def drafts(self) -> int:
        """Self-speculation where a request says nothing."""
        return self.settings.draft_bytes if isinstance(self.lm, BLT) else 0


def _template(lm: LanguageModel, settings: Settings) -> ChatTemplate | None:
    """How chats are laid out: as the server was told, else as the model's folder says."""
    if settings.template:
        template = ChatTemplate.chosen(settings.template)
    elif lm.chat_template is not None:
        template = ChatTemplate(lm.chat_template)
    else:
        return None
    _ = template.end  # a template that fails is refused at once
    return template


def _cancel(handles: list[Handle]) -> None:
    for handle in handles:
        handle.cancel()


def name_of(model: str) -> str:
    """RUN for RUN/checkpoint, else the folder's own name."""
    if model == PRETRAINED:
        return PRETRAINED
    folder = Path(model).resolve()
    return folder.parent.name if folder.name == "checkpoint" else folder.name
