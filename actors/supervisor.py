"""Start, replace and stop the workers of this host."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import assert_never

from loguru import logger

from ..runtime.actor import Actor, ActorRef
from .messages import (
    Activate,
    ClaimerMessage,
    Drain,
    KeeperMessage,
    LeasesGone,
    SupervisorMessage,
    SyncWanted,
    Tick,
    Wishes,
    WorkerGone,
    WorkerJoined,
    WorkerMessage,
    WorkerOver,
    WorkerReady,
)
from .vitals import Vitals

StartWorker = Callable[[int, bool, bool], ActorRef[WorkerMessage]]  # number, sync, standby
StopWorker = Callable[[ActorRef[WorkerMessage]], object]

FIRST_PAUSE = 0.5  # seconds before the next try when a worker can't start, or workers keep dying; doubling
LONGEST_PAUSE = 30.0
DEATHS_WINDOW = 30.0  # seconds


@dataclass(slots=True)
class _Post:
    """One worker: `ready` has imported the application, `active` takes work, `gone` only its actor is left."""

    ref: ActorRef[WorkerMessage]
    sync: bool
    standby: bool
    ready: bool = False
    active: bool = False
    gone: bool = False


class Supervisor(Actor[SupervisorMessage]):
    """Keeps so many async and sync workers at work, and one async worker standing by with the application imported.

    The standby hides the time that an import takes: when a worker dies, it takes over at once. Sync workers are started
    when there is something for them. Workers that can't start, or die again and again, are replaced more and more
    slowly. `gone` is called when the last worker has left after a Drain.
    """

    def __init__(
        self,
        start_worker: StartWorker,
        stop_worker: StopWorker,
        claimer: ActorRef[ClaimerMessage],
        keeper: ActorRef[KeeperMessage],
        vitals: Vitals,
        *,
        workers: int,
        sync_workers: int,
        gone: Callable[[], None],
    ) -> None:
        self._start_worker = start_worker
        self._stop_worker = stop_worker
        self._claimer = claimer
        self._keeper = keeper
        self._vitals = vitals
        self._wanted = {False: workers, True: 0}
        self._sync_workers = sync_workers
        self._gone = gone
        self._posts: dict[int, _Post] = {}
        self._numbers = 0
        self._draining: float | None = None
        self._pause = FIRST_PAUSE
        self._start_at = 0.0
        self._deaths: deque[float] = deque()
        self._most_deaths = 2 * workers + 3  # in the window: all at once, and a task on its three lives

    async def started(self) -> None:
        self._fill()

    async def receive(self, message: SupervisorMessage) -> None:
        match message:
            case Tick():
                self._fill()
                self._look_around()
            case SyncWanted():
                self._wanted[True] = self._sync_workers
                self._fill()
            case WorkerReady(worker):
                self._is_ready(worker)
            case WorkerJoined(worker):
                self._joined(worker)
            case WorkerGone(worker):
                self._lost(self._posts[worker], message)
            case WorkerOver(worker):
                self._over(worker)
            case Wishes() | LeasesGone():
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
            serving = sum(1 for post in self._alive() if post.sync is sync and not post.standby)
            for _ in range(wanted - serving):
                if not self._promote_standby(sync):
                    self._start(sync, standby=False)
        if not any(post.standby for post in self._alive()):
            self._start(False, standby=True)

    def _alive(self) -> list[_Post]:
        return [post for post in self._posts.values() if not post.gone]

    def _promote_standby(self, sync: bool) -> bool:
        for post in self._alive():
            if post.standby and post.ready and post.sync is sync:
                post.standby = False
                post.ref.tell(Activate())
                return True
        return False

    def _start(self, sync: bool, *, standby: bool) -> None:
        self._numbers += 1
        self._posts[self._numbers] = _Post(self._start_worker(self._numbers, sync, standby), sync, standby)

    def _is_ready(self, worker: int) -> None:
        post = self._posts[worker]
        post.ready = True
        if post.standby and self._vitals.state == "running":
            self._recovered()  # the others do work, and this one could start

    def _joined(self, worker: int) -> None:
        self._posts[worker].active = True
        if self._vitals.state in ("starting", "blocked"):
            self._become("running")
        self._recovered()

    def _look_around(self) -> None:
        """What was wrong is over when everybody is there and up."""
        alive = self._alive()
        complete = len(alive) == sum(self._wanted.values()) + 1
        if complete and self._vitals.error and all(post.ready if post.standby else post.active for post in alive):
            self._recovered()
        loops = [number for number, post in self._posts.items() if post.active and not post.sync]
        if loops and self._vitals.state in ("running", "blocked"):
            self._become("blocked" if self._vitals.blocked.keys() >= set(loops) else "running")

    def _become(self, state: str) -> None:
        if self._vitals.state != state:
            self._vitals.state = state
            self._keeper.tell(Tick())

    def _recovered(self) -> None:
        if self._keep_dying():
            return
        self._pause = FIRST_PAUSE
        if self._vitals.error is not None:
            logger.info("workers can start again")
        self._vitals.error = None

    def _lost(self, post: _Post, gone: WorkerGone) -> None:
        post.gone = True
        was_up = post.active or (post.standby and post.ready)
        post.active = False
        if self._draining is not None:
            return
        if gone.killed is not None:
            logger.warning("worker {} was killed, its other tasks run again: {}", gone.worker, gone.killed)
        elif gone.traceback is not None or not was_up:
            self._blocked(gone.traceback or f"a worker died while it started ({_cause(gone.code)})")
            return
        else:
            self._died(gone)
        self._fill()

    def _died(self, gone: WorkerGone) -> None:
        self._deaths.append(time.monotonic())
        logger.warning("worker {} died ({}); its tasks run again", gone.worker, _cause(gone.code))
        if self._keep_dying():
            self._blocked(f"workers die again and again, the last one of {_cause(gone.code)}")

    def _over(self, worker: int) -> None:
        self._stop_worker(self._posts.pop(worker).ref)
        self._leave_if_last()

    def _keep_dying(self) -> bool:
        while self._deaths and self._deaths[0] < time.monotonic() - DEATHS_WINDOW:
            self._deaths.popleft()
        return len(self._deaths) > self._most_deaths

    def _blocked(self, why: str) -> None:
        """Workers can't start, or don't stay: the server stays up, says why, and tries again."""
        self._start_at = time.monotonic() + self._pause
        self._pause = min(self._pause * 2, LONGEST_PAUSE)
        if self._vitals.error != why:
            logger.error("workers can't start: {}", why)
        self._vitals.error = why
        if not any(post.active for post in self._alive()):
            self._become("blocked")

    def _drain(self, grace: float) -> None:
        self._draining = grace
        self._become("draining")
        self._claimer.tell(Drain(grace))
        for post in self._alive():
            post.ref.tell(Drain(grace))
        self._leave_if_last()

    def _leave_if_last(self) -> None:
        if self._draining is not None and not self._posts:
            self._gone()

    def _count(self) -> None:
        self._vitals.workers = sum(1 for post in self._posts.values() if post.active)


def _cause(code: int) -> str:
    return f"signal {-code}" if code < 0 else f"exit code {code}"
