"""Start, replace, scale and stop the workers of this host."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from typing import assert_never

from loguru import logger

from ..runtime.actor import Actor, ActorRef
from ..runtime.scaling import MIB, Limits, Load, Wear, workers_wanted
from .messages import (
    Activate,
    ClaimerMessage,
    Drain,
    KeeperMessage,
    LeasesGone,
    Overgrown,
    Retire,
    Scale,
    SupervisorMessage,
    Tick,
    Wishes,
    WorkerGone,
    WorkerJoined,
    WorkerMessage,
    WorkerOver,
    WorkerReady,
    WorkersWanted,
)
from .setbacks import Setbacks
from .staff import Post, Staff, StartWorker
from .vitals import Vitals

StopWorker = Callable[[ActorRef[WorkerMessage]], object]

RENEW_EVERY = 1.0  # seconds between two workers that are replaced because they are worn


class Supervisor(Actor[SupervisorMessage]):
    """Keeps as many async and sync workers at work as there is work for, within their limits, and one async worker
    standing by with the application imported.

    The standby hides the time that an import takes: when a worker dies, or is worn, it takes over at once. Workers that
    can't start, or die again and again, are replaced more and more slowly.

    `limits` are for async workers; of sync ones there may be as many, but no more than `cpus`, and they are there only
    when there is something for them. `grace`: seconds that the stop hooks of a worker may take that leaves earlier than
    the server. `gone` is called when the last one has left after a Drain.
    """

    def __init__(
        self,
        start_worker: StartWorker,
        stop_worker: StopWorker,
        claimer: ActorRef[ClaimerMessage],
        keeper: ActorRef[KeeperMessage],
        vitals: Vitals,
        *,
        limits: Limits,
        cpus: int,
        wear: Wear,
        grace: float,
        gone: Callable[[], None],
    ) -> None:
        self._staff = Staff(start_worker)
        self._stop_worker = stop_worker
        self._claimer = claimer
        self._keeper = keeper
        self._vitals = vitals
        self._limits = {False: limits, True: replace(limits, least=0, most=min(limits.most, cpus))}
        self._cpus = cpus
        self._wanted = {False: limits.least, True: 0}
        self._wear = wear
        self._grace = grace
        self._gone = gone
        self._draining = False
        self._setbacks = Setbacks()
        self._renewed_at = 0.0

    async def started(self) -> None:
        self._fill()

    async def receive(self, message: SupervisorMessage) -> None:
        match message:
            case Tick():
                self._look_around()
                self._renew()
                self._adapt()
            case WorkersWanted():
                self._adapt()
            case Scale(workers):
                self._scale(workers)
            case WorkerReady(worker):
                self._is_ready(self._staff[worker])
            case WorkerJoined(worker):
                self._joined(self._staff[worker])
            case WorkerGone(worker):
                self._lost(self._staff[worker], message)
            case WorkerOver(worker):
                self._stop_worker(self._staff.remove(worker))
                self._leave_if_last()
            case Wishes() | LeasesGone():
                for post in self._staff:
                    post.ref.tell(message)
            case Drain(grace):
                self._drain(grace)
            case _:
                assert_never(message)
        self._vitals.workers = sum(1 for post in self._staff if post.active and post.serves)

    # ---- how many

    def _adapt(self) -> None:
        """Start the workers that are missing, let go those that are too many."""
        if self._draining:
            return
        for sync in self._wanted:
            self._decide(sync)
        self._fill()
        for sync in self._wanted:
            self._dismiss(sync)

    def _decide(self, sync: bool) -> None:
        serving = self._staff.serving(sync)
        if any(post.worn for post in serving):
            return  # its successor comes first
        now = time.monotonic()
        loads = [self._load(post, now) for post in serving if post.active]
        kind = self._vitals.kinds.get(sync)
        waiting = kind is not None and kind.waiting
        self._wanted[sync] = workers_wanted(loads, len(serving) - len(loads), self._limits[sync], waiting=waiting)

    def _load(self, post: Post, now: float) -> Load:
        own = self._vitals.post(post.number)
        idle = 0.0 if own.busy else now - own.idle_since
        return Load(own.slots, own.busy, idle, own.cpu, blocked=not own.answers)

    def _fill(self) -> None:
        """Let the standby take over first; what has to be started waits while workers can't start."""
        if self._draining:
            return
        may_start = self._setbacks.may_try
        for sync, wanted in self._wanted.items():
            serving = sum(1 for post in self._staff.serving(sync) if not post.worn)
            for _ in range(wanted - serving):
                if not self._promote_standby(sync) and may_start:
                    self._staff.start(sync, standby=False)
        if may_start and self._staff.standby() is None:
            self._staff.start(False, standby=True)

    def _promote_standby(self, sync: bool) -> bool:
        post = self._staff.standby()
        if post is None or not post.ready or post.sync is not sync:
            return False
        post.standby = False
        post.ref.tell(Activate())
        return True

    def _dismiss(self, sync: bool) -> None:
        serving = self._staff.serving(sync)
        active = [post for post in serving if post.active]
        worn = [post for post in active if post.worn]
        for post in worn[: max(len(active) - self._wanted[sync], 0)]:
            self._retire(post)
        fresh = sorted((post for post in serving if not post.worn), key=self._dispensable)
        for post in fresh[: max(len(fresh) - self._wanted[sync], 0)]:
            logger.info("worker {} leaves: there is nothing for it to do", post.number)
            self._retire(post)

    def _dispensable(self, post: Post) -> tuple[bool, int, float]:
        """The order in which workers go: who has not come up, who has least to do, who has had nothing for longest."""
        own = self._vitals.post(post.number)
        return post.active, own.busy, own.idle_since

    def _retire(self, post: Post) -> None:
        post.leaving = True
        post.ref.tell(Retire(self._grace))

    def _scale(self, workers: int) -> None:
        self._limits[False] = limits = self._limits[False].scaled(workers)
        logger.info("scaled: from {} to {} workers", limits.least, limits.most)
        self._limits[True] = replace(self._limits[True], most=min(workers, self._cpus))
        self._adapt()

    # ---- wear

    def _renew(self) -> None:
        """Replace one worker that has had its time, after the other, and not all of them at once while they finish."""
        now = time.monotonic()
        leaving = sum(1 for post in self._staff.alive() if post.leaving)
        may_leave = (
            not self._draining and leaving < sum(self._wanted.values()) and now >= self._renewed_at + RENEW_EVERY
        )
        for post in self._staff.alive():
            if not post.active or (reason := self._wear_of(post)) is None:
                continue
            if may_leave and post.serves and not any(other.worn for other in self._staff if other.serves):
                post.worn = True
                self._renewed_at = now
                logger.info("worker {} is replaced: {}", post.number, reason)

    def _wear_of(self, post: Post) -> str | None:
        """Why this worker has had its time. One that holds far too much is not left to finish what runs."""
        own, limit = self._vitals.post(post.number), self._wear.memory
        if limit is not None and own.first_memory >= limit:
            self._wear = replace(self._wear, memory=None)
            logger.error(
                "QUEUE_MAX_MEMORY_PER_WORKER ({} MiB) is not applied: a worker takes {} MiB before its first task",
                limit // MIB,
                own.first_memory // MIB,
            )
        reason = self._wear.of(own.ended, own.memory)
        if reason is not None and self._wear.is_far_exceeded(own.memory):
            post.ref.tell(Overgrown(reason))
        return reason

    # ---- coming and going

    def _is_ready(self, post: Post) -> None:
        post.ready = True
        if post.standby and self._vitals.state == "running":
            self._recovered()  # the others do work, and this one could start

    def _joined(self, post: Post) -> None:
        post.active = True
        if self._vitals.state in ("starting", "blocked"):
            self._become("running")
        self._recovered()
        self._adapt()

    def _look_around(self) -> None:
        """What was wrong is over when everybody is there and up. A server is blocked while no loop of it answers."""
        everybody = [post for post in self._staff.alive() if not post.leaving]
        complete = len(everybody) > sum(self._wanted.values())
        if complete and self._vitals.error and all(post.came_up for post in everybody):
            self._recovered()
        loops = [post.number for post in self._staff.serving(False) if post.active]
        if loops and self._vitals.state in ("running", "blocked"):
            blocked = all(self._vitals.post(number).blocked for number in loops)
            self._become("blocked" if blocked else "running")

    def _become(self, state: str) -> None:
        if self._vitals.state != state:
            self._vitals.state = state
            self._keeper.tell(Tick())

    def _recovered(self) -> None:
        if self._setbacks.too_many_deaths(self._limits[False].most):
            return
        self._setbacks.over()
        if self._vitals.error is not None:
            logger.info("workers can start again")
        self._vitals.error = None

    def _lost(self, post: Post, gone: WorkerGone) -> None:
        came_up, post.active, post.gone = post.came_up, False, True
        if self._draining:
            return
        if post.leaving and gone.code == 0:
            logger.info("worker {} has left", gone.worker)
        elif gone.judgement is not None and not gone.judgement.fatal:
            logger.warning("worker {} was killed, its other tasks run again: {}", gone.worker, gone.judgement.reason)
        elif came_up and gone.traceback is None:
            self._died(gone)
        else:
            self._blocked(gone.traceback or f"a worker died while it started ({_cause(gone)})")
        self._fill()

    def _died(self, gone: WorkerGone) -> None:
        self._setbacks.died()
        logger.warning("worker {} died ({}); its tasks run again", gone.worker, _cause(gone))
        if self._setbacks.too_many_deaths(self._limits[False].most):
            self._blocked(f"workers die again and again, the last one of {_cause(gone)}")

    def _blocked(self, why: str) -> None:
        """Workers can't start, or don't stay: the server stays up, says why, and tries again."""
        self._setbacks.failed()
        if self._vitals.error != why:
            logger.error("workers can't start: {}", why)
        self._vitals.error = why
        if not any(post.active for post in self._staff.alive()):
            self._become("blocked")

    def _drain(self, grace: float) -> None:
        self._draining = True
        self._become("draining")
        self._claimer.tell(Drain(grace))
        for post in self._staff.alive():
            post.ref.tell(Drain(grace))
        self._leave_if_last()

    def _leave_if_last(self) -> None:
        if self._draining and not len(self._staff):
            self._gone()


def _cause(gone: WorkerGone) -> str:
    if gone.judgement is not None:
        return gone.judgement.reason
    return f"signal {-gone.code}" if gone.code < 0 else f"exit code {gone.code}"
