"""Which workers a supervisor starts, replaces and lets go; the workers are played by the tests."""

from __future__ import annotations

from typing import Any

import pytest

from queued_tasks.actors import supervisor as module
from queued_tasks.actors.messages import (
    Activate,
    Overgrown,
    Retire,
    Scale,
    Tick,
    WorkerGone,
    WorkerJoined,
    WorkerOver,
    WorkerReady,
    WorkersWanted,
)
from queued_tasks.actors.supervisor import Supervisor
from queued_tasks.actors.vitals import Capacity, Vitals, WorkerVitals
from queued_tasks.runtime.actor import ActorRef
from queued_tasks.runtime.scaling import MIB, Limits, Wear

SLOTS = 10


class Stage:
    """A supervisor with two CPUs, and what it says to its workers."""

    def __init__(self, limits: Limits, wear: Wear) -> None:
        self.vitals = Vitals()
        self.started: list[tuple[int, bool, bool]] = []  # number, sync, standby
        self.refs: dict[int, ActorRef[Any]] = {}
        nobody: ActorRef[Any] = ActorRef("nobody")
        self.supervisor = Supervisor(
            self._start,
            lambda _ref: None,
            nobody,
            nobody,
            self.vitals,
            limits=limits,
            cpus=2,
            wear=wear,
            grace=30,
            gone=lambda: None,
        )

    def _start(self, number: int, sync: bool, standby: bool) -> ActorRef[Any]:
        self.started.append((number, sync, standby))
        self.refs[number] = ActorRef(f"worker {number}")
        return self.refs[number]

    def heard(self, number: int) -> list[Any]:
        return list(self.refs[number]._queue)

    def leaving(self) -> list[int]:
        return [number for number in self.refs if any(isinstance(message, Retire) for message in self.heard(number))]

    async def ready(self, number: int) -> None:
        self.vitals.posts[number] = WorkerVitals(SLOTS)
        await self.supervisor.receive(WorkerReady(number))

    async def joins(self, number: int, *, sync: bool = False, busy: int = 0) -> None:
        await self.ready(number)
        self.vitals.posts[number].busy = busy
        await self.supervisor.receive(WorkerJoined(number, sync, SLOTS, self.refs[number]))

    async def dies(self, number: int, traceback: str | None = None) -> None:
        await self.supervisor.receive(WorkerGone(number, -9, traceback, None))
        await self.supervisor.receive(WorkerOver(number))

    def waits(self, *, sync: bool = False) -> None:
        self.vitals.kinds[sync] = Capacity(1, SLOTS, SLOTS, waiting=True)

    async def tick(self) -> None:
        await self.supervisor.receive(Tick())


async def stage(
    least: int = 1, most: int = 8, *, up: int = 1, wear: Wear | None = None, busy: int = 0, floor: int | None = None
) -> Stage:
    """A supervisor with so many workers up, and a standby that is ready."""
    made = Stage(Limits(least, most, 60, floor), wear or Wear())
    await made.supervisor.started()
    for number in range(1, up + 1):
        await made.joins(number, busy=busy)
    await made.ready(next(number for number, _, standby in made.started if standby))
    return made


async def test_it_begins_with_the_least_and_a_standby() -> None:
    assert (await stage(least=2, up=2)).started == [(1, False, False), (2, False, False), (3, False, True)]


async def test_the_standby_takes_over_from_a_dead_worker_and_gets_a_successor() -> None:
    it = await stage()
    await it.dies(1)
    assert (it.heard(2), it.started[2:]) == ([Activate()], [(3, False, True)])


async def test_the_standby_takes_over_even_while_no_worker_may_be_started() -> None:
    it = await stage(least=2, up=2)
    await it.dies(1)
    await it.dies(4, traceback="no such module")
    await it.dies(2)
    assert it.heard(3) == [Activate()]
    assert len(it.started) == 4


async def test_a_dead_standby_is_replaced() -> None:
    it = await stage()
    await it.dies(2)
    assert it.started[2:] == [(3, False, True)]


async def test_more_come_while_tasks_wait_and_every_slot_is_taken() -> None:
    it = await stage(busy=SLOTS)
    it.waits()
    await it.tick()
    assert (it.heard(2), it.started[2:]) == ([Activate()], [(3, False, True)])


async def test_the_first_sync_worker_comes_for_the_first_sync_task() -> None:
    it = await stage()
    it.waits(sync=True)
    await it.supervisor.receive(WorkersWanted())
    assert it.started[2:] == [(3, True, False)]


async def test_of_sync_workers_there_are_no_more_than_cpus() -> None:
    it = await stage()
    it.waits(sync=True)
    await it.tick()
    for number in (3, 4, 5):
        if number in it.refs:
            await it.joins(number, sync=True, busy=SLOTS)
        await it.tick()
    assert [sync for _, sync, _ in it.started].count(True) == 2


async def test_who_has_been_idle_for_longest_goes() -> None:
    it = await stage(up=1, busy=SLOTS)
    it.waits()
    await it.tick()
    await it.joins(2)
    now = it.vitals.posts[2].idle_since
    for number, idle in ((1, 70), (2, 90)):
        it.vitals.posts[number] = WorkerVitals(SLOTS, idle_since=now - idle)
    it.vitals.kinds.clear()
    await it.tick()
    assert it.leaving() == [2]


async def test_one_that_may_do_with_few_gets_more_when_there_is_something_to_do() -> None:
    it = await stage(least=1, most=2, up=1, busy=SLOTS, floor=1)
    await it.supervisor.receive(Scale(4))
    assert len(it.started) == 2
    it.waits()
    await it.tick()
    await it.joins(2, busy=SLOTS)
    await it.tick()
    assert [number for number, _, standby in it.started if not standby] == [1, 4, 5]


async def test_a_lower_maximum_lets_those_go_that_have_least_to_do() -> None:
    it = await stage(least=1, most=4, up=1, busy=SLOTS)
    it.waits()
    await it.tick()
    await it.joins(2, busy=3)
    await it.supervisor.receive(Scale(1))
    assert it.leaving() == [2]


@pytest.mark.parametrize("least", [1, 2])
async def test_who_asks_for_more_workers_gets_them_at_once(least: int) -> None:
    it = await stage(least=least, most=2, up=least)
    await it.supervisor.receive(Scale(4))
    assert it.heard(least + 1) == [Activate()]
    assert sum(1 for _, _, standby in it.started if not standby) == 3


# ---- wear


async def test_a_worn_worker_goes_when_its_successor_has_come() -> None:
    it = await stage(wear=Wear(tasks=5))
    it.vitals.posts[1].ended = 5
    await it.tick()
    assert (it.heard(2), it.leaving()) == ([Activate()], [])
    await it.joins(2)
    assert it.leaving() == [1]


async def test_a_worn_worker_goes_on_when_its_successor_can_not_start() -> None:
    it = await stage(wear=Wear(tasks=5))
    await it.dies(2)
    it.vitals.posts[1].ended = 5
    await it.tick()
    await it.dies(4, traceback="no such module")
    await it.tick()
    assert it.leaving() == []


async def test_worn_workers_are_replaced_one_after_the_other() -> None:
    it = await stage(least=3, most=3, up=3, wear=Wear(tasks=5))
    for number in (1, 2, 3):
        it.vitals.posts[number].ended = 5
    for _ in range(3):
        await it.tick()
    assert len([number for number, _, standby in it.started if not standby]) == 3
    assert it.heard(4) == [Activate()]


async def test_a_worker_that_holds_far_too_much_is_ended() -> None:
    it = await stage(wear=Wear(memory=100 * MIB))
    it.vitals.posts[1].memory = 201 * MIB
    await it.tick()
    assert any(isinstance(message, Overgrown) for message in it.heard(1))


async def test_so_is_one_that_is_finishing() -> None:
    it = await stage(wear=Wear(memory=100 * MIB))
    it.vitals.posts[1].memory = 101 * MIB
    await it.tick()
    await it.joins(2)
    assert it.leaving() == [1]
    it.vitals.posts[1].memory = 201 * MIB
    await it.tick()
    assert any(isinstance(message, Overgrown) for message in it.heard(1))


async def test_a_limit_below_what_a_worker_needs_is_not_applied() -> None:
    it = await stage(wear=Wear(memory=100 * MIB))
    it.vitals.posts[1].first_memory = 150 * MIB
    it.vitals.posts[1].memory = 300 * MIB
    await it.tick()
    assert it.heard(1) == []


async def test_no_more_workers_finish_than_there_are_at_work(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "RENEW_EVERY", 0)
    it = await stage(wear=Wear(tasks=5))
    it.vitals.posts[1].ended = 5
    await it.tick()
    await it.joins(2)
    await it.ready(3)
    it.vitals.posts[2].ended = 5
    await it.tick()
    assert (it.leaving(), it.heard(3)) == ([1], [])
    await it.dies(1)
    await it.tick()
    assert it.heard(3) == [Activate()]


# ---- state


async def test_a_server_is_blocked_while_none_of_its_workers_answers() -> None:
    it = await stage(least=2, most=2, up=2)
    states = []
    for one, other in ((None, None), ("spins", None), ("spins", "spins"), (None, "spins")):
        it.vitals.posts[1].blocked, it.vitals.posts[2].blocked = one, other
        await it.tick()
        states.append(it.vitals.state)
    assert states == ["running", "running", "blocked", "running"]
