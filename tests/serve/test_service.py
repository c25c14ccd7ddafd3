"""Forward passes of one service run one at a time, whoever leaves meanwhile."""

from __future__ import annotations

import asyncio
import gc
import threading
from collections.abc import Callable

import pytest

from blt.serve.errors import APIError
from blt.serve.service import Service
from blt.serve.settings import Settings
from shapes import random_blt


class Pass:
    """A forward pass that ends when it is told to."""

    def __init__(self, ended: Callable[[], object] = lambda: None) -> None:
        self.begun, self.go, self.ended = threading.Event(), threading.Event(), ended

    def __call__(self) -> object:
        self.begun.set()
        assert self.go.wait(timeout=60)
        return self.ended()

    async def has_begun(self) -> bool:
        return await asyncio.to_thread(self.begun.wait, 60)


async def left(service: Service, work: Pass) -> None:
    """Begin a pass for a client who leaves."""
    client = asyncio.create_task(service.analyse(work))
    assert await work.has_begun()
    client.cancel()
    with pytest.raises(asyncio.CancelledError):
        await client


async def all_places_are_free(service: Service) -> None:
    for _ in range(service.settings.max_queue):
        await service.analyse(lambda: None)
    assert service._analyses == 0
    assert not service._one_at_a_time.locked()


def test_a_pass_whose_client_has_left_is_waited_for() -> None:
    order: list[str] = []

    async def scenario() -> None:
        service, first = (
            Service(random_blt(), Settings("tiny")),
            Pass(lambda: order.append("first")),
        )
        await left(service, first)
        second = asyncio.create_task(service.analyse(lambda: order.append("second")))
        await asyncio.wait({second}, timeout=0.2)  # time enough to begin, if it may
        first.go.set()
        await second
        await all_places_are_free(service)

    asyncio.run(scenario())
    assert order == ["first", "second"]


def test_a_pass_whose_client_has_left_keeps_its_place_in_the_queue() -> None:
    async def scenario() -> None:
        service, first = Service(random_blt(), Settings("tiny", max_queue=1)), Pass()
        await left(service, first)
        try:
            with pytest.raises(APIError, match="too many texts are waiting"):
                await service.analyse(lambda: None)
        finally:
            first.go.set()
        while service._analyses:
            await asyncio.sleep(0.01)
        await all_places_are_free(service)

    asyncio.run(scenario())


def test_who_leaves_before_its_turn_gives_up_its_place_and_is_not_worked_for() -> None:
    worked: list[str] = []

    async def scenario() -> None:
        service, first = Service(random_blt(), Settings("tiny", max_queue=2)), Pass()
        client = asyncio.create_task(service.analyse(first))
        assert await first.has_begun()
        waits = asyncio.create_task(service.analyse(lambda: worked.append("left")))
        await asyncio.sleep(0)
        waits.cancel()
        await asyncio.wait({waits})
        after = asyncio.create_task(service.analyse(lambda: worked.append("stayed")))
        first.go.set()
        await asyncio.gather(client, after)
        await all_places_are_free(service)

    asyncio.run(scenario())
    assert worked == ["stayed"]


def test_what_a_pass_raises_is_for_its_client_and_nobody_misses_it_once_that_has_left() -> None:
    missed: list[dict[str, object]] = []

    def fail() -> None:
        raise ValueError("no such thing")

    async def scenario() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _, context: missed.append(context))
        service, first = Service(random_blt(), Settings("tiny")), Pass(fail)
        with pytest.raises(ValueError, match="no such thing"):
            await service.analyse(fail)
        await left(service, first)
        first.go.set()
        await all_places_are_free(service)
        gc.collect()  # asyncio tells of an exception when the task that has it goes

    asyncio.run(scenario())
    assert missed == []
