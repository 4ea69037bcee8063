"""A worker without a process: to run a task is to sleep for as long as the task says."""

from __future__ import annotations

import asyncio
import json
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from uuid import UUID

from queued_tasks.actors.messages import (
    Activate,
    Colleagues,
    Freed,
    Outcomes,
    Place,
    WorkerJoined,
    WorkerMessage,
    WorkerReady,
)
from queued_tasks.runtime.actor import Actor
from queued_tasks.runtime.task import Claimed, Settled


async def nap(seconds: float, added: float) -> None:
    """What the tasks name. It is not called: a simulated worker looks at its arguments, and sleeps."""


@dataclass(frozen=True, slots=True)
class Run:
    """One task that has run. Times are readings of time.monotonic()."""

    server: str
    added: float
    started: float
    ended: float


class SleepingWorker(Actor[WorkerMessage]):
    """Comes up at once, and runs `slots` tasks at a time, `speed` times as fast as they ask for. Tells `ran` of each.

    Nobody interrupts, drains or watches it.
    """

    def __init__(
        self,
        post: WorkerReady,
        colleagues: Colleagues,
        ran: Callable[[float, float], None],
        *,
        sync: bool,
        standby: bool,
        slots: int,
        speed: float,
    ) -> None:
        self._post, self._tell, self._ran = post, colleagues, ran
        self._sync, self._standby, self._slots, self._speed = sync, standby, slots, speed
        self._waiting: deque[Claimed] = deque()
        self._asleep: dict[UUID, asyncio.TimerHandle] = {}

    async def started(self) -> None:
        self._tell.supervisor.tell(self._post)
        if not self._standby:
            self._join()

    async def stopped(self) -> None:
        for timer in self._asleep.values():
            timer.cancel()

    async def receive(self, message: WorkerMessage) -> None:
        match message:
            case Activate():
                self._join()
            case Place(attempts):
                self._waiting.extend(attempts)
                self._fill_slots()
            case _:
                pass

    def _join(self) -> None:
        joined = WorkerJoined(self._post.worker, self._sync, self._slots, self.ref)
        self._tell.claimer.tell(joined)
        self._tell.supervisor.tell(joined)

    def _fill_slots(self) -> None:
        while self._waiting and len(self._asleep) < self._slots:
            claimed = self._waiting.popleft()
            seconds, added = json.loads(claimed.args)
            loop, began = asyncio.get_running_loop(), time.monotonic()
            self._asleep[claimed.id] = loop.call_later(seconds / self._speed, self._end, claimed, added, began)

    def _end(self, claimed: Claimed, added: float, began: float) -> None:
        now = time.monotonic()
        del self._asleep[claimed.id]
        end = Settled(claimed.lease, claimed.id, claimed.attempt, "done", now - began, now, claimed.flagged)
        self._tell.settler.tell(Outcomes([end], [], [], []))
        self._tell.claimer.tell(Freed(self._post.worker, 1))
        self._ran(added, began)
        self._fill_slots()
