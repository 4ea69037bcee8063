"""Start, replace and stop the workers of this host."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import assert_never

from loguru import logger

from ..runtime.actor import Actor, ActorRef
from .messages import (
    Activate,
    ClaimerMessage,
    Drain,
    SupervisorMessage,
    SyncWanted,
    Tick,
    Wishes,
    WorkerGone,
    WorkerJoined,
    WorkerMessage,
    WorkerReady,
)
from .vitals import Vitals

StartWorker = Callable[[int, bool, bool], ActorRef[WorkerMessage]]  # number, sync, standby
StopWorker = Callable[[ActorRef[WorkerMessage]], object]

FIRST_PAUSE = 0.5  # seconds before the next try when the application can't be imported, doubling
LONGEST_PAUSE = 30.0


@dataclass(slots=True)
class _Post:
    """One worker: `ready` has imported the application, `active` takes work."""

    ref: ActorRef[WorkerMessage]
    sync: bool
    standby: bool
    ready: bool = False
    active: bool = False


class Supervisor(Actor[SupervisorMessage]):
    """Keeps so many async and sync workers at work, and one async worker standing by with the application imported.

    The standby hides the time that an import takes: when a worker dies, it takes over at once. Sync workers are started
    when there is something for them. `gone` is called when
    the last worker has left after a Drain.
    """

    def __init__(
        self,
        start_worker: StartWorker,
        stop_worker: StopWorker,
        claimer: ActorRef[ClaimerMessage],
        vitals: Vitals,
        *,
        workers: int,
        sync_workers: int,
        gone: Callable[[], None],
    ) -> None:
        self._start_worker = start_worker
        self._stop_worker = stop_worker
        self._claimer = claimer
        self._vitals = vitals
        self._wanted = {False: workers, True: 0}
        self._sync_workers = sync_workers
        self._gone = gone
        self._posts: dict[int, _Post] = {}
        self._numbers = 0
        self._draining: float | None = None
        self._pause = FIRST_PAUSE
        self._start_at = 0.0

    async def started(self) -> None:
        self._fill()

    async def receive(self, message: SupervisorMessage) -> None:
        match message:
            case Tick():
                self._fill()
            case SyncWanted():
                self._wanted[True] = self._sync_workers
                self._fill()
            case WorkerReady(worker):
                self._posts[worker].ready = True
            case WorkerJoined(worker):
                self._joined(worker)
            case WorkerGone(worker, code, traceback):
                self._lost(worker, code, traceback)
            case Wishes():
                for post in self._posts.values():
                    post.ref.tell(message)
            case Drain(grace):
                self._drain(grace)
            case _:
                assert_never(message)
        self._count()

    def _fill(self) -> None:
        if self._draining is not None or time.monotonic() < self._start_at:
            return
        for sync, wanted in self._wanted.items():
            serving = sum(1 for post in self._posts.values() if post.sync is sync and not post.standby)
            for _ in range(wanted - serving):
                if not self._promote_standby(sync):
                    self._start(sync, standby=False)
        if not any(post.standby for post in self._posts.values()):
            self._start(False, standby=True)

    def _promote_standby(self, sync: bool) -> bool:
        for post in self._posts.values():
            if post.standby and post.ready and post.sync is sync:
                post.standby = False
                post.ref.tell(Activate())
                return True
        return False

    def _start(self, sync: bool, *, standby: bool) -> None:
        self._numbers += 1
        self._posts[self._numbers] = _Post(self._start_worker(self._numbers, sync, standby), sync, standby)

    def _joined(self, worker: int) -> None:
        self._posts[worker].active = True
        self._pause = FIRST_PAUSE
        if self._vitals.error is not None:
            logger.info("the application can be imported again")
        self._vitals.error = None
        if self._vitals.state in ("starting", "blocked"):
            self._vitals.state = "running"

    def _lost(self, worker: int, code: int, traceback: str | None) -> None:
        post = self._posts.pop(worker)
        self._stop_worker(post.ref)
        if self._draining is not None:
            if not self._posts:
                self._gone()
            return
        if traceback is not None or not post.ready:
            self._blocked(traceback or f"a worker exited with code {code} while it started")
        else:
            logger.warning("worker {} died ({}); its tasks run again", worker, _cause(code))
            self._fill()

    def _blocked(self, why: str) -> None:
        """The workers can't start: the server stays up, says why, claims nothing, and tries again."""
        self._start_at = time.monotonic() + self._pause
        self._pause = min(self._pause * 2, LONGEST_PAUSE)
        if self._vitals.error != why:
            logger.error("the application can't be imported:\n{}", why)
        self._vitals.error = why
        if not any(post.active for post in self._posts.values()):
            self._vitals.state = "blocked"

    def _drain(self, grace: float) -> None:
        self._draining = grace
        self._vitals.state = "draining"
        self._claimer.tell(Drain(grace))
        for post in self._posts.values():
            post.ref.tell(Drain(grace))
        if not self._posts:
            self._gone()

    def _count(self) -> None:
        self._vitals.workers = sum(1 for post in self._posts.values() if post.active)


def _cause(code: int) -> str:
    return f"signal {-code}" if code < 0 else f"exit code {code}"
