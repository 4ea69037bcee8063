"""A server of which all is real, its connections and all its actors, but its workers."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from queued_tasks.actors.identity import Identity
from queued_tasks.actors.messages import Colleagues, Tick, WorkerMessage, WorkerReady
from queued_tasks.actors.tree import FATAL, Actors, Application, Incarnation, Links, run_incarnation
from queued_tasks.actors.vitals import Vitals
from queued_tasks.runtime.actor import ActorKeptFailing, ActorRef, Tree
from queued_tasks.runtime.settings import Settings
from queued_tasks.runtime.store.link import CALL_TIMEOUT, LeaseLost, Link, Row

from .worker import Run, SleepingWorker


@dataclass(slots=True)
class HostVitals(Vitals):
    """Of a host of its own: that all these are one machine, and how busy that is, does not count."""

    speed: float = 1.0

    @property
    def pace(self) -> float:
        return self.speed


class Unaware(Link):
    """The link of the heartbeat of a server that hears of no room that its peers have: so it leaves them nothing."""

    async def fetch(
        self, statement: str, *args: object, timeout: float = CALL_TIMEOUT, session: int | None = None
    ) -> list[Row]:
        rows = await super().fetch(statement, *args, timeout=timeout, session=session)
        return [{**row, "slots": 0} for row in rows] if statement == "beat" else rows


class SleepingActors(Actors):
    """Those of a server, with workers that sleep."""

    def __init__(self, server: SimulatedServer, *wiring: Any) -> None:
        self._server = server
        super().__init__(*wiring)

    def _start_worker(self, number: int, sync: bool, standby: bool) -> ActorRef[WorkerMessage]:
        server = self._server
        colleagues = Colleagues(self.supervisor, self.claimer, self.settler, self.recorder, self.desk)
        return self._tree.start(
            f"worker {number}",
            lambda: SleepingWorker(
                WorkerReady(number),
                colleagues,
                server.ran,
                sync=sync,
                standby=standby,
                slots=1 if sync else server.slots,
                speed=server.vitals.speed,
            ),
            restarts=FATAL,
        )


class SimulatedServer:
    """One incarnation. `shares`: whether it leaves its peers their part of new tasks."""

    def __init__(
        self, name: str, dsn: str, *, slots: int = 10, speed: float = 1.0, shares: bool = True, runs: list[Run]
    ) -> None:
        self.name, self.slots = name, slots
        self.vitals = HostVitals(speed=speed)
        self.identity = Identity(name)
        self._runs = runs
        settings = Settings(concurrency=slots, min_workers=1, max_workers=1)
        links = Links.of(dsn, settings, name)
        if not shares:
            links.beat = Unaware(dsn, settings.schema, name=f"server {name}: beat")
        application = Application(None, None, lifespan=False, scheduler=False)
        our = Incarnation(dsn, settings, self.identity, self.vitals, application, links, None)
        self._actors: Actors | None = None
        self._life = asyncio.create_task(run_incarnation(our, asyncio.Event(), self._start))

    def _start(
        self, tree: Tree, our: Incarnation, leave: Callable[[], None], gone: Callable[[], None]
    ) -> SleepingActors:
        self._actors = SleepingActors(self, tree, our, leave, gone)
        return self._actors

    def ran(self, added: float, started: float) -> None:
        """A task has just run."""
        self._runs.append(Run(self.name, added, started, time.monotonic()))

    def beat(self) -> None:
        """Beat now rather than when it is time."""
        if self._actors is not None:
            self._actors.keeper.tell(Tick())

    def has_beaten_since(self, then: float) -> bool:
        """Whether it takes tasks, and others may know."""
        beat_at = self.vitals.beat_at
        return not self._life.done() and self.vitals.state == "running" and beat_at is not None and beat_at > then

    @property
    def given_up(self) -> bool:
        """Whether its peers have taken it for dead, since it did not beat in time. Raises what else has ended it."""
        if not self._life.done():
            return False
        try:
            self._life.result()
        except ActorKeptFailing as failure:
            if not isinstance(failure.error, LeaseLost):
                raise
        return True

    async def kill(self) -> None:
        """End its sessions and its beats, and leave what it holds to the others."""
        self._life.cancel()
        with suppress(asyncio.CancelledError, ActorKeptFailing):
            await self._life
