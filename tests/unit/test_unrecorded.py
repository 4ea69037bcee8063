"""The characters that wait to be recorded are counted until the settler is through with them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import pytest

from queued_tasks.actors.announcements import Announcements
from queued_tasks.actors.held import Held
from queued_tasks.actors.messages import Go, Opened, Outcomes
from queued_tasks.actors.notes import Notes
from queued_tasks.actors.settler import Settler
from queued_tasks.actors.vitals import Vitals
from queued_tasks.runtime import wire
from queued_tasks.runtime.actor import ActorRef
from queued_tasks.runtime.errors import DatabaseUnavailable
from queued_tasks.runtime.store.link import NoRoom, TooLong
from queued_tasks.runtime.store.servers import ServerStore
from queued_tasks.runtime.store.tasks import Settlement, TaskStore
from queued_tasks.runtime.task import Claimed, ContextWrite, Executor, NewTask, ServerId, Settled
from tests.claimed import fresh

TRACEBACK = "t" * 20
CONTEXT = '{"at": 1}'
LINE = "said"


class Tables:
    """A store that raises the next one of `troubles`, and otherwise takes all but results that are no JSON."""

    def __init__(self) -> None:
        self.troubles: list[Exception] = []

    async def session(self) -> int:
        return 1

    async def settle(self, _server: ServerId, settled: Sequence[Settled], **_: object) -> Settlement:
        if self.troubles:
            raise self.troubles.pop(0)
        if any(end.result == "no JSON" for end in settled):
            raise ValueError("invalid input syntax")
        return Settlement(frozenset(), 0, {})


class Stage:
    """What a worker notes, and a settler."""

    def __init__(self) -> None:
        self.vitals, self.tables = Vitals(), Tables()
        self.notes = Notes(self.vitals)
        nobody: ActorRef[Any] = ActorRef("nobody")
        self._settler = Settler(
            cast("TaskStore", self.tables),
            cast("ServerStore", self.tables),
            ServerId(fresh().lease),
            Announcements(nobody, nobody, None),
            nobody,
            self.vitals,
        )
        self._settler.ref = ActorRef("settler")

    async def tells(self, outcomes: Outcomes) -> None:
        for end in outcomes.settled:
            await self._settler.receive(Opened(end.lease, [end.id]))
        await self._settler.receive(outcomes)
        await self.flushes()

    async def flushes(self) -> None:
        await self._settler.receive(Go())


def ended(claimed: Claimed, result: str | None, traceback: str | None = None) -> Settled:
    return Settled(
        claimed.lease,
        claimed.id,
        claimed.attempt,
        "done",
        0.1,
        1.0,
        False,
        None,
        result,
        exception_traceback=traceback,
    )


def outcomes(stage: Stage, result: str = "12345") -> Outcomes:
    """Of two attempts, of which the second one has all that there may be."""
    first, second = fresh(), fresh()
    stage.notes.log([wire.LogLine(7, 0.0, 20, "app", LINE, None)], {7: Held(second)})
    end = ended(second, result, TRACEBACK)
    return stage.notes.hand_over(
        [ended(first, None), end],
        [ContextWrite(second, 1, CONTEXT)],
        [(end, [NewTask(id=fresh().id, function="main:report", executor=Executor(0), args="[1, 2]")])],
    )


async def test_what_ended_attempts_leave_is_counted_until_it_is_recorded() -> None:
    stage = Stage()
    handed_over = outcomes(stage)
    assert stage.vitals.unrecorded == len("12345" + TRACEBACK + CONTEXT + LINE + "[1, 2]")
    await stage.tells(handed_over)
    assert stage.vitals.unrecorded == 0


async def test_it_counts_for_as_long_as_postgresql_is_away() -> None:
    stage = Stage()
    stage.tables.troubles = [DatabaseUnavailable("away")]
    handed_over = stage.notes.hand_over([ended(fresh(), "12345")], [], [])
    await stage.tells(handed_over)
    assert stage.vitals.unrecorded == 5
    await stage.flushes()
    assert stage.vitals.unrecorded == 0


@pytest.mark.parametrize("trouble", [NoRoom("log lines are dropped"), TooLong("each goes by itself")])
async def test_all_of_it_is_taken_off_however_it_is_recorded_in_the_end(trouble: Exception) -> None:
    stage = Stage()
    stage.tables.troubles = [trouble]
    await stage.tells(outcomes(stage))
    await stage.flushes()
    assert stage.vitals.unrecorded == 0


async def test_all_of_it_is_taken_off_when_postgresql_refuses_a_part() -> None:
    stage = Stage()
    await stage.tells(outcomes(stage, "no JSON"))
    assert stage.vitals.unrecorded == 0
