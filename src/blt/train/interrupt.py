"""Ctrl-C and SIGTERM end a training between two steps, where its state is whole."""

from __future__ import annotations

import signal
import threading
from types import FrameType, TracebackType


class StopRequest:
    """Inside its ``with`` block signals only set :attr:`wanted`, but a second Ctrl-C acts.

    SIGTERM may come any number of times: where a scheduler tells all processes of a job to end,
    torchrun does too.
    """

    def __init__(self) -> None:
        self.wanted = False
        self._before: dict[int, object] = {}

    def __enter__(self) -> StopRequest:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._before[number] = signal.signal(number, self._ask)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for number in list(self._before):
            self._restore(number)

    def _ask(self, number: int, frame: FrameType | None) -> None:
        self.wanted = True
        if number == signal.SIGINT:
            self._restore(number)

    def _restore(self, number: int) -> None:
        handler = self._before.pop(number) or signal.SIG_DFL
        signal.signal(number, handler)  # type: ignore[arg-type]
