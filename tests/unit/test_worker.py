"""What a worker gives its process to run, and what it gives back; the process and the clock are played by the tests."""

from __future__ import annotations

import asyncio
from typing import Any
from uuid import UUID

import pytest

from queued_tasks.actors import worker as module
from queued_tasks.actors.messages import Colleagues, Died, Drain, Outcomes, Place, Tick, Unstarted, WorkerJoined
from queued_tasks.actors.vitals import Vitals
from queued_tasks.actors.worker import Worker
from queued_tasks.runtime import wire
from queued_tasks.runtime.actor import ActorRef
from queued_tasks.runtime.lifecycle import MOST_CRASHES
from queued_tasks.runtime.process import Usage
from queued_tasks.runtime.task import Claimed
from tests.claimed import fresh
from tests.clock import Clock
from tests.fake_supervisor import argument


class FakeProcess:
    """Keeps what it is sent."""

    argument: wire.WorkerArgument

    def __init__(self) -> None:
        self.frames: list[object] = []
        self.exited: asyncio.Future[int] = asyncio.get_running_loop().create_future()

    async def spawn(self, *_: object) -> None: ...

    def send(self, frame: object) -> None:
        self.frames.append(frame)

    def usage(self) -> Usage:
        return Usage(0, 0.0)


class Stage:
    """A worker that holds nothing yet, and what it says to its process and to the settler."""

    def __init__(self, clock: Clock, process: FakeProcess, kind: str = "async") -> None:
        self._clock = clock
        self._process = process
        self._settler: ActorRef[Any] = ActorRef("settler")
        self.claimer: ActorRef[Any] = ActorRef("claimer")
        nobody: ActorRef[Any] = ActorRef("nobody")
        colleagues = Colleagues(nobody, self.claimer, self._settler, nobody, nobody)
        self.vitals = Vitals()
        self.worker = Worker(1, lambda: None, argument(kind), colleagues, self.vitals, standby=False)
        self.worker.ref = ActorRef("worker")

    async def places(self, *attempts: Claimed) -> None:
        await self.worker.receive(Place(list(attempts)))

    async def after(self, seconds: float) -> None:
        self._clock.now += seconds
        await self.worker.receive(Tick())

    def sent(self) -> dict[UUID, int]:
        """The tasks that the process was to run, in their order, with the numbers of their attempts there."""
        runs = (frame for frame in self._process.frames if isinstance(frame, wire.Run))
        return {UUID(bytes=attempt.id): attempt.no for run in runs for attempt in run.attempts}

    async def dies(self, *, begun: int) -> None:
        """The process dies of its own accord; it had begun that attempt last."""
        assert self._process.argument.begun is not None
        self._process.argument.begun.value = begun
        await self.worker.receive(Died(9))

    def outcomes(self) -> dict[UUID, str]:
        """Of all attempts that have ended so far."""
        told = (message for message in self._settler._queue if isinstance(message, Outcomes))
        return {settled.id: settled.outcome for message in told for settled in message.settled}

    def given_back(self) -> list[Claimed]:
        """All so far."""
        told = (message for message in self._settler._queue if isinstance(message, Unstarted))
        return [claimed for message in told for claimed in message.attempts]


async def set_up(monkeypatch: pytest.MonkeyPatch, kind: str) -> Stage:
    clock, process = Clock(), FakeProcess()

    def start(_entry: object, argument: wire.WorkerArgument) -> FakeProcess:
        process.argument = argument
        return process

    monkeypatch.setattr(module, "WorkerProcess", start)
    monkeypatch.setattr(module, "time", clock)
    stage = Stage(clock, process, kind)
    await stage.worker.started()
    return stage


@pytest.fixture
async def stage(monkeypatch: pytest.MonkeyPatch) -> Stage:
    return await set_up(monkeypatch, "async")


@pytest.fixture
async def sync_stage(monkeypatch: pytest.MonkeyPatch) -> Stage:
    return await set_up(monkeypatch, "sync")


def on_last_life() -> Claimed:
    return fresh(MOST_CRASHES - 1)


async def test_of_tasks_on_their_last_life_one_is_given_to_the_process(stage: Stage) -> None:
    first, second = on_last_life(), on_last_life()
    await stage.places(first, second)
    assert [*stage.sent()] == [first.id]


async def test_those_that_wait_for_it_are_given_back_after_a_second(stage: Stage) -> None:
    first, second, third = on_last_life(), on_last_life(), on_last_life()
    await stage.places(first, second, third)
    await stage.after(0.9)
    assert stage.given_back() == []
    await stage.after(0.2)
    assert stage.given_back() == [second, third]


async def test_one_that_comes_back_stays_as_long_as_the_first_had_run_by_then(stage: Stage) -> None:
    first, second = on_last_life(), on_last_life()
    await stage.places(first)
    await stage.after(10.0)
    await stage.places(second)
    await stage.after(9.5)
    assert stage.given_back() == []
    await stage.after(1.0)
    assert stage.given_back() == [second]


async def test_however_long_the_first_runs_none_waits_for_more_than_a_minute(stage: Stage) -> None:
    first, second = on_last_life(), on_last_life()
    await stage.places(first)
    await stage.after(3_600.0)
    await stage.places(second)
    await stage.after(61.0)
    assert stage.given_back() == [second]


async def test_one_that_waits_is_next_when_the_process_returns_the_first(stage: Stage) -> None:
    first, second = on_last_life(), on_last_life()
    await stage.places(first, second)
    await stage.worker.receive(wire.Returned([stage.sent()[first.id]]))
    assert [*stage.sent()] == [first.id, second.id]


async def test_of_what_dies_with_a_sync_worker_the_one_that_it_had_begun_last_is_to_blame(sync_stage: Stage) -> None:
    attempts = [fresh() for _ in range(4)]
    await sync_stage.places(*attempts)
    await sync_stage.dies(begun=2)
    assert sync_stage.outcomes() == {attempts[0].id: "interrupted", attempts[1].id: "crashed"}
    assert sync_stage.given_back() == attempts[2:]


async def test_nobody_is_to_blame_when_a_sync_worker_dies_between_two(sync_stage: Stage) -> None:
    attempts = [fresh() for _ in range(3)]
    await sync_stage.places(*attempts)
    await sync_stage.worker.receive(wire.Ended([wire.End(1, "done", 0.1)]))
    await sync_stage.dies(begun=1)
    assert sync_stage.outcomes() == {attempts[0].id: "done"}
    assert sync_stage.given_back() == attempts[1:]


async def test_what_a_sync_worker_should_have_begun_counts_as_running_until_it_dies(sync_stage: Stage) -> None:
    """A thread that a task left behind may keep it from that for ever."""
    waiting = fresh()
    await sync_stage.places(waiting)
    await sync_stage.after(1.0)
    ((no, held),) = sync_stage.worker._held.running().items()
    assert (no, held.claimed.id, held.started is not None) == (1, waiting.id, True)
    await sync_stage.dies(begun=0)
    assert (sync_stage.outcomes(), sync_stage.given_back()) == ({}, [waiting])


async def test_one_that_was_told_to_leave_while_it_started_does_not_join(stage: Stage) -> None:
    await stage.worker.receive(wire.Ready())
    await stage.worker.receive(Drain(1.0))
    await stage.worker.receive(wire.Active(10))
    assert not any(isinstance(message, WorkerJoined) for message in stage.claimer._queue)


async def test_what_ended_attempts_leave_counts_as_unrecorded(stage: Stage) -> None:
    first, second = fresh(), fresh()
    await stage.places(first, second)
    numbers = stage.sent()
    await stage.worker.receive(wire.ContextChanged(numbers[second.id], '{"at": 1}'))
    await stage.worker.receive(wire.Ended([wire.End(numbers[first.id], "done", 0.1, "12345")]))
    assert stage.vitals.unrecorded == 5
    await stage.worker.receive(Died(9))
    assert stage.vitals.unrecorded == 5 + len('{"at": 1}')
