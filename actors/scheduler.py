"""Fire schedules: one task for each due time, whichever server is first."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import datetime
from typing import assert_never

import msgspec
from loguru import logger
from msgspec.structs import replace

from ..runtime import wire
from ..runtime.actor import Actor
from ..runtime.cron import Cron
from ..runtime.errors import DatabaseUnavailable
from ..runtime.ids import new_id
from ..runtime.signing import Signer
from ..runtime.store.schedules import Declaration, Fired, ScheduleRow, ScheduleStore
from ..runtime.task import NewTask
from .messages import SchedulerMessage, Schedules, Tick

LONGEST_SLEEP = 300.0  # seconds
LOOK_FOR_END = 1.0  # seconds between two looks whether a run has ended that another one waits for
CONFIRM_EVERY = 300.0  # seconds
PRUNE_EVERY = 3_600.0  # seconds
BATCH = 1_000  # fires
AT_ONCE = 0.0


class Scheduler(Actor[SchedulerMessage]):
    """Sleeps until something is due. Any number of servers may do this at once: the database lets one of them fire.

    `schedules` is what the application declares, kept by whoever starts this actor, for it outlives a restart. `lined`
    is told how many tasks may be claimed.
    """

    def __init__(
        self,
        schedules: dict[str, wire.Schedule],
        store: ScheduleStore,
        lined: Callable[[int], None],
        signer: Signer | None,
        *,
        retention: float,
    ) -> None:
        self._schedules = schedules
        self._store = store
        self._lined = lined
        self._signer = signer
        self._retention = retention
        self._newly = True
        self._passed_over: set[Declaration] = set()  # those of others that the log has named
        self._confirm_at = AT_ONCE
        self._look_at = AT_ONCE
        self._prune_at = AT_ONCE

    async def receive(self, message: SchedulerMessage) -> None:
        match message:
            case Schedules(declared):
                self._learn({schedule.name: schedule for schedule in declared})
            case Tick():
                pass
            case _:
                assert_never(message)
        if self._schedules:
            await self._do_what_is_due(time.monotonic())

    def _learn(self, schedules: dict[str, wire.Schedule]) -> None:
        if schedules == self._schedules:
            return
        self._schedules.clear()
        self._schedules.update(schedules)
        self._newly = True
        self._confirm_at = self._look_at = AT_ONCE

    async def _do_what_is_due(self, now: float) -> None:
        try:
            if now >= self._confirm_at:
                await self._confirm(now)
            if now >= self._look_at:
                self._look_at = now + await self._look()
            if now >= self._prune_at:
                self._prune_at = now + PRUNE_EVERY
                await self._prune()
        except DatabaseUnavailable:
            return

    async def _confirm(self, now: float) -> None:
        await self._store.declare([_declaration(each) for each in self._schedules.values()], newly=self._newly)
        self._newly = False
        self._confirm_at = now + CONFIRM_EVERY

    async def _look(self) -> float:
        """Fire what is due; return for how many seconds there is nothing to do."""
        sleep = LONGEST_SLEEP
        for row in await self._store.look(list(self._schedules)):
            schedule = self._schedules[row.name]
            if row.declaration == _declaration(schedule):
                waits = not row.paused and await self._waits_for_run(schedule, row)
                due = Cron(schedule.cron, schedule.timezone).next_after(row.now)
                sleep = min(sleep, LOOK_FOR_END if waits else (due - row.now).total_seconds())
            elif row.function != schedule.task.function:
                self._pass_over(schedule, row)
        return sleep

    def _pass_over(self, schedule: wire.Schedule, row: ScheduleRow) -> None:
        """Say that another function has the name: a newer version of the same one, in a deploy, is no news."""
        if row.declaration in self._passed_over:
            return
        self._passed_over.add(row.declaration)
        logger.warning(
            "schedule {} does not run {} any more: it was declared for {} since. If both are to run, give one of them "
            "another name with @scheduled_task(name=...)",
            row.name,
            schedule.task.function,
            row.function,
        )

    async def _waits_for_run(self, schedule: wire.Schedule, row: ScheduleRow) -> bool:
        """See to what is due; whether something is left because the previous run is active."""
        plan = Cron(schedule.cron, schedule.timezone).plan(row.after, row.now, catch_up=schedule.catch_up)
        if plan.skip is not None:
            outcome = await self._store.skip(row.declaration, plan.skip, _missed(row.after))
            if outcome is Fired.SKIPPED:
                logger.warning("schedule {} missed what was due until {}", row.name, plan.skip.isoformat())
        for due in plan.fires:
            outcome = await self._fire(schedule, due)
            if outcome is Fired.BUSY:
                return True
        return False

    async def _fire(self, schedule: wire.Schedule, due: datetime) -> Fired:
        task = self._task(schedule, due)
        outcome = await self._store.fire(_declaration(schedule), due, task, patient=schedule.catch_up)
        if outcome is Fired.FIRED:
            logger.info("schedule {} fired for {}: task {}", schedule.name, due.isoformat(), task.id)
            self._lined(1)
        elif outcome is Fired.SKIPPED:
            logger.warning("schedule {} skipped {}: its previous run is active", schedule.name, due.isoformat())
        return outcome

    def _task(self, schedule: wire.Schedule, due: datetime) -> NewTask:
        context = msgspec.json.encode({"schedule": {"name": schedule.name, "due_at": due.isoformat()}}).decode()
        task = replace(wire.unpack(schedule.task), id=new_id(), context=context)
        return task if self._signer is None else replace(task, signature=self._signer.sign(task))

    async def _prune(self) -> None:
        while await self._store.prune(self._retention, BATCH) == BATCH:
            pass


def _declaration(schedule: wire.Schedule) -> Declaration:
    return Declaration(schedule.name, schedule.cron, schedule.timezone, schedule.task.function)


def _missed(after: datetime) -> str:
    return f"missed: no server was there for what was due after {after.isoformat(timespec='seconds')}"
