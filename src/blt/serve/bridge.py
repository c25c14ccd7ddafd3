"""From the engine's thread to the event loop: whoever waits for bytes is woken, nobody polls."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Sequence

from blt.generate import Engine, Handle
from blt.generate.request import Piece

FLUSH_SECONDS = 0.05  # bytes of a stream travel together for so long: fewer, larger chunks


class _Wait:
    """A coroutine that waits for some texts."""

    def __init__(self, handles: Sequence[Handle], every_byte: bool) -> None:
        self.handles, self.every_byte = handles, every_byte
        self.event = asyncio.Event()
        self.told = False  # written by the engine's thread, taken back by the loop's
        self.shown = [0] * len(handles)
        self.open = list(range(len(handles)))  # whose end has not been seen

    def has_news(self, due: bool) -> bool:
        """In the engine's thread: is there a reason to wake it?"""
        for index in tuple(self.open):  # the loop may change it
            handle = self.handles[index]
            if handle.finished:
                return True
            shown = self.shown[index]
            if self.every_byte and (due or shown == 0) and handle.available > shown:
                return True
        return False


class Bridge:
    """Where coroutines wait for texts that the engine is writing."""

    def __init__(self, engine: Engine) -> None:
        self._waits: set[_Wait] = set()
        self._loop = asyncio.get_running_loop()
        self._due = 0.0
        engine.on_step = self._stepped

    async def pieces(
        self, handles: Sequence[Handle], every_byte: bool = True
    ) -> AsyncGenerator[tuple[int, Piece], None]:
        """New bytes of each text as they come, and which text; the last piece has a reason.

        Use ``contextlib.aclosing``: where a reader stops early, the waiting must stop too.

        Args:
            every_byte: False: only whole texts, as they end.
        """
        wait = _Wait(handles, every_byte)
        self._waits.add(wait)
        try:
            while wait.open:
                wait.told = False  # before looking: news from now on wakes us again
                for index in list(wait.open):
                    piece = handles[index].piece(wait.shown[index])
                    ended = piece.finish_reason is not None
                    if ended:
                        wait.open.remove(index)
                    if ended or (every_byte and piece.data):
                        wait.shown[index] += len(piece.data)
                        yield index, piece
                if wait.open:
                    await wait.event.wait()
                    wait.event.clear()
        finally:
            self._waits.discard(wait)

    def _stepped(self) -> None:
        """In the engine's thread, after each step."""
        now = time.monotonic()
        due = now >= self._due
        if due:
            self._due = now + FLUSH_SECONDS
        news = [wait for wait in tuple(self._waits) if not wait.told and wait.has_news(due)]
        if news:
            for wait in news:
                wait.told = True
            self._loop.call_soon_threadsafe(_wake, news)


def _wake(waits: list[_Wait]) -> None:
    for wait in waits:
        wait.event.set()
