"""Turns that pass from one to the next, and the writes of an outbox that are made of them."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from uuid import UUID

import pytest

from queued_tasks.runtime.entry import Entry
from queued_tasks.runtime.ids import new_id
from queued_tasks.runtime.outbox import Outbox
from queued_tasks.runtime.relay import Relay
from queued_tasks.runtime.task import Executor, NewTask

CLIENTS = 16
ROUNDS = 5


def never() -> bool:
    return False


async def in_line(count: int) -> None:
    """Let tasks that were just started come as far as they can."""
    for _ in range(count):
        await asyncio.sleep(0)


async def test_a_turn_is_passed_on_in_the_order_in_which_it_was_asked_for() -> None:
    relay, order = Relay(), list[int]()

    async def runner(number: int) -> None:
        assert await relay.take(never)
        order.append(number)
        await asyncio.sleep(0)
        relay.pass_on()

    await asyncio.gather(*(runner(number) for number in range(5)))
    assert order == [0, 1, 2, 3, 4]


async def test_who_came_for_what_is_done_is_let_go_without_a_turn() -> None:
    relay, done = Relay(), list[str]()
    assert await relay.take(never)
    waiting = asyncio.create_task(relay.take(lambda: "it" in done))
    await in_line(1)
    done.append("it")
    relay.pass_on()
    assert await waiting is False


async def test_those_who_are_let_go_run_before_who_has_the_next_turn() -> None:
    relay, order = Relay(), list[str]()

    async def come(name: str, is_done: bool) -> None:
        await relay.take(lambda: is_done)
        order.append(name)

    assert await relay.take(never)
    tasks = [asyncio.create_task(come("next", False)), asyncio.create_task(come("let go", True))]
    await in_line(1)
    relay.pass_on()
    await asyncio.gather(*tasks)
    assert order == ["let go", "next"]


async def test_who_is_cancelled_with_the_turn_in_hand_passes_it_on() -> None:
    relay = Relay()
    assert await relay.take(never)
    cancelled, following = asyncio.create_task(relay.take(never)), asyncio.create_task(relay.take(never))
    await in_line(1)
    relay.pass_on()
    cancelled.cancel()
    assert await following
    assert cancelled.cancelled()


async def test_who_waits_longer_than_it_wants_to_leaves_the_line() -> None:
    relay = Relay()
    assert await relay.take(never)
    with pytest.raises(TimeoutError):
        await relay.take(never, asyncio.get_running_loop().time())
    relay.pass_on()
    assert await relay.take(never)


async def test_each_has_its_own_deadline_whatever_those_before_it_have() -> None:
    relay, now = Relay(), asyncio.get_running_loop().time()
    assert await relay.take(never)
    patient = asyncio.create_task(relay.take(never, now + 60))
    hasty = [asyncio.create_task(relay.take(never, now + after)) for after in (0.02, 0.01)]
    with pytest.raises(TimeoutError):
        await hasty[1]
    with pytest.raises(TimeoutError):
        await hasty[0]
    relay.pass_on()
    assert await patient


class Notebook:
    """A writer that notes how many tasks it was given at once."""

    def __init__(self) -> None:
        self.sizes: list[int] = []

    async def write(self, tasks: Sequence[NewTask], *, repeat: bool = False) -> dict[UUID, UUID]:  # noqa: ARG002
        self.sizes.append(len(tasks))
        await asyncio.sleep(0)
        return {}

    def draft(self, patience: float) -> None: ...

    async def was_written(self, id: UUID) -> bool:  # noqa: ARG002
        return True

    async def note(self, id: UUID, message: str, exception: str) -> None: ...

    async def expect(self, ids: Sequence[UUID]) -> None: ...


async def test_clients_that_await_side_by_side_are_written_together() -> None:
    notebook = Notebook()
    outbox = Outbox(notebook, together=False)

    async def client() -> None:
        for _ in range(ROUNDS):
            entry = Entry(NewTask(id=new_id(), function="app:send", executor=Executor.ASYNC, args="[]"), outbox)
            outbox.add(entry)
            await outbox.settle(entry)

    await asyncio.gather(*(client() for _ in range(CLIENTS)))
    assert notebook.sizes == [CLIENTS] * ROUNDS
