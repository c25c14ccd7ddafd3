"""Who waits, and who may join: requests in the order in which they came, as memory allows."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence

from rich.filesize import decimal

from blt.errors import UserError
from blt.generate.request import Request


class RefusedError(UserError):
    """The queue is full: try again later."""


class ClosedError(UserError):
    """The engine has been closed, or has failed: make another."""


class Admission:
    """The queue. Whoever calls a method but :meth:`check` holds the engine's lock.

    Args:
        max_batch: texts that are read or written at the same time.
        max_queue: requests that may wait.
        budget: bytes for caches, and for reading one piece of a prompt.
        memory_of: bytes of caches that requests take together.
    """

    def __init__(
        self,
        max_batch: int,
        max_queue: int,
        budget: int,
        memory_of: Callable[[Sequence[Request]], int],
    ) -> None:
        self.max_batch, self.max_queue, self.budget = max_batch, max_queue, budget
        self.memory_of = memory_of
        self.waiting: deque[Request] = deque()

    def needed(self, requests: Sequence[Request]) -> int:
        """Bytes that requests take together; of their prompts one piece is read at a time."""
        return self.memory_of(requests) + max((r.working for r in requests), default=0)

    def check(self, request: Request, prompt_bytes: int) -> None:
        """Refuse what cannot fit even alone.

        Raises:
            UserError: says how much it can need.
        """
        needed = self.needed([request])
        if needed > self.budget:
            raise UserError(
                f"a prompt of {prompt_bytes} bytes and max_bytes "
                f"{request.sampling.max_bytes} can need {decimal(needed)} of caches, more than "
                f"the budget of {decimal(self.budget)}; shorten it, ask for less, or raise "
                "memory_budget where you make the engine"
            )

    def add(self, request: Request) -> None:
        """Let a request wait.

        Raises:
            RefusedError: ``max_queue`` requests are waiting.
        """
        if len(self.waiting) >= self.max_queue:
            self.forget_cancelled()
        if len(self.waiting) >= self.max_queue:
            raise RefusedError(f"{self.max_queue} requests are waiting already; try again later")
        self.waiting.append(request)

    def forget_cancelled(self) -> None:
        """Give up the places of cancelled requests."""
        if not any(request.cancelled for request in self.waiting):
            return
        # In one go: who is cancelled meanwhile, by another thread, waits on and ends next time.
        self.waiting = deque(request for request in self.waiting if not request.ended())

    def next(self, admitted: Sequence[Request]) -> list[Request]:
        """Those that there are rows and memory for besides who is admitted, in their order."""
        self.forget_cancelled()
        together = list(admitted)
        while self.waiting and len(together) < self.max_batch:
            request = self.waiting[0]
            if request.finish_reason is None:
                if self.needed([*together, request]) > self.budget:
                    break
                together.append(request)
            self.waiting.popleft()
        return together[len(admitted) :]
