"""Batches made ahead by a thread, so that a training step need not wait for them."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any, Generic, TypeVar

from blt.data.loader import Loader
from blt.model.language import Batch

DEPTH = 4  # batches made ahead
Made = TypeVar("Made")


class Prefetch(Iterator[Made], Generic[Made]):
    """The batches of a loader, and its position as if it had not run ahead.

    Args:
        make: what the thread makes of a batch.

    Attributes:
        waited: seconds spent waiting for batches so far.
    """

    def __init__(self, loader: Loader, make: Callable[[Batch], Made]) -> None:
        self.loader, self.make, self.waited = loader, make, 0.0
        self._state = loader.state()
        self._ready: queue.Queue[tuple[Made, dict[str, Any]] | Exception] = queue.Queue(DEPTH)
        self._thread: threading.Thread | None = None
        self._stop = threading.Event()

    def __next__(self) -> Made:
        if self._thread is None:
            self._stop.clear()
            self._thread = threading.Thread(target=self._work, name="blt-loader", daemon=True)
            self._thread.start()
        start = time.monotonic()
        made = self._ready.get()
        self.waited += time.monotonic() - start
        if isinstance(made, Exception):
            self.close()
            raise made
        batch, self._state = made
        return batch

    def state(self) -> dict[str, Any]:
        """Where the stream stands after the batch that was taken last."""
        return self._state

    def restore(self, state: dict[str, Any]) -> None:
        """As :meth:`Loader.restore`."""
        self.close()
        self.loader.restore(state)
        self._state = state

    def close(self) -> None:
        """End the thread; what it has made ahead is forgotten, and made again when asked for."""
        if self._thread is None:
            return
        self._stop.set()
        while self._thread.is_alive():  # it may wait for room
            self._drain()
            self._thread.join(timeout=0.01)
        self._drain()
        self._thread = None
        self.loader.restore(self._state)

    def _drain(self) -> None:
        while not self._ready.empty():
            self._ready.get_nowait()

    def _work(self) -> None:
        try:
            while not self._stop.is_set():
                batch = next(self.loader)
                self._ready.put((self.make(batch), batch.state))
        except Exception as error:
            self._ready.put(error)
