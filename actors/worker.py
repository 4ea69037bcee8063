"""Stand for one worker process: what it holds, when it is overdue, how its end is accounted for."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterable
from itertools import count, islice
from typing import assert_never
from uuid import UUID

import msgspec

from ..runtime import wire
from ..runtime.actor import Actor, ActorRef
from ..runtime.lifecycle import INTERRUPTED, Verdict, Why, after_death, after_interrupt, after_timeout
from ..runtime.process import WorkerProcess
from ..runtime.task import Claimed, ContextWrite, LogWrite, NewTask, Settled
from .console import relay
from .messages import (
    Activate,
    Asked,
    ClaimerMessage,
    DeskMessage,
    Died,
    Drain,
    Freed,
    Outcomes,
    Place,
    RecorderMessage,
    SchedulerMessage,
    Schedules,
    SettlerMessage,
    SupervisorMessage,
    Tick,
    Unstarted,
    Wishes,
    WorkerGone,
    WorkerJoined,
    WorkerLeft,
    WorkerMessage,
    WorkerReady,
    Writes,
)
from .vitals import Vitals

KILL_GRACE = 5.0  # seconds that an attempt may stay past its timeout before its process is killed
WISH_GRACE = 5.0  # seconds that it has to end once somebody wants it cancelled or stopped
DRAIN_GRACE = 3.0  # seconds beyond the grace of a shutdown that a worker has to leave
FLUSH_EVERY = 0.2  # seconds between two writes of contexts and logs

_DECODER = msgspec.msgpack.Decoder(wire.FromWorker)


class Colleagues(msgspec.Struct, frozen=True):
    """Whom a worker tells what."""

    supervisor: ActorRef[SupervisorMessage]
    claimer: ActorRef[ClaimerMessage]
    settler: ActorRef[SettlerMessage]
    recorder: ActorRef[RecorderMessage]
    desk: ActorRef[DeskMessage]
    scheduler: ActorRef[SchedulerMessage] | None = None


class Held(msgspec.Struct):
    """An attempt that the process has. `started` is when it was first seen among those that run."""

    claimed: Claimed
    started: float | None = None
    wished: float | None = None  # when somebody wanted it to end
    why: Why | None = None
    version: int = 0  # of its context


class Worker(Actor[WorkerMessage]):
    """One worker process from its start to its end; another one takes its place, not this actor's next instance.

    The process runs what it is given in order, as many at once as it has slots: so the oldest that it holds are those
    that run, and nobody needs to be told of a start.
    """

    def __init__(
        self,
        number: int,
        entry: Callable[..., object],
        argument: wire.WorkerArgument,
        colleagues: Colleagues,
        vitals: Vitals,
        *,
        standby: bool,
    ) -> None:
        self._number = number
        self._entry = entry
        self._argument = argument
        self._tell = colleagues
        self._vitals = vitals
        self._standby = standby
        self._held: dict[int, Held] = {}
        self._numbers = count(1)
        self._contexts: dict[int, ContextWrite] = {}
        self._logs: list[LogWrite] = []
        self._flushed_at = 0.0
        self._pinged_at = 0.0
        self._leave_by: float | None = None
        self._failure: str | None = None
        self._culprits: set[int] = set()

    async def started(self) -> None:
        self._process = WorkerProcess(self._entry, self._argument)  # type: ignore[arg-type]  # either kind of entry
        await self._process.spawn(_DECODER, self.ref.tell, lambda _error: None)
        self._process.exited.add_done_callback(lambda exited: self.ref.tell(Died(exited.result())))

    async def stopped(self) -> None:
        self._process.kill()

    async def receive(self, message: WorkerMessage) -> None:
        match message:
            case wire.Ended(ends):
                self._ended(ends)
            case Place(attempts):
                self._place(attempts)
            case wire.ContextChanged(no, value):
                self._note_context(no, value)
            case wire.Logged(lines):
                self._note_logs(lines)
            case Tick():
                self._tick(time.monotonic())
            case wire.Pong(_, memory):
                self._vitals.memory[self._number] = memory
            case wire.Call():
                self._tell.desk.tell(Asked(message, self._process.send))
            case wire.Ready(schedules):
                if self._tell.scheduler is not None and self._argument.kind == "async":
                    self._tell.scheduler.tell(Schedules(tuple(schedules)))
                self._tell.supervisor.tell(WorkerReady(self._number))
                if not self._standby:
                    self._process.send(wire.Activate())
            case Activate():
                self._standby = False
                self._process.send(wire.Activate())
            case wire.Active(slots):
                joined = WorkerJoined(self._number, self._argument.kind == "sync", slots, self.ref)
                self._tell.claimer.tell(joined)
                self._tell.supervisor.tell(joined)
            case wire.NotReady(traceback):
                self._failure = traceback
            case Wishes(cancels, stops):
                self._interrupt(cancels, Why.CANCEL)
                self._interrupt(stops, Why.STOP)
            case Drain(grace):
                self._tell.claimer.tell(WorkerLeft(self._number))
                self._leave_by = time.monotonic() + grace + DRAIN_GRACE
                self._process.send(wire.Drain(grace))
            case wire.Returned(nos):
                self._give_back([self._held.pop(no) for no in nos if no in self._held])
            case wire.Record():
                relay(message, self._number)
            case wire.Bye():
                pass  # its death follows
            case Died(code):
                self._bury(code)
            case _:
                assert_never(message)

    def _place(self, attempts: list[Claimed]) -> None:
        if self._leave_by is not None or self._process.exited.done():
            self._tell.settler.tell(Unstarted(attempts))
            return
        run = wire.Run([])
        for claimed in attempts:
            no = next(self._numbers)
            self._held[no] = Held(claimed)
            run.attempts.append(_attempt(no, claimed))
        self._process.send(run)

    def _ended(self, ends: list[wire.End]) -> None:
        now = time.monotonic()
        settled: list[Settled] = []
        contexts: list[ContextWrite] = []
        added: list[tuple[UUID, list[NewTask]]] = []
        for end in ends:
            held = self._held.pop(end.no, None)
            if held is None:
                continue
            claimed = held.claimed
            settled.append(
                Settled(
                    claimed.lease,
                    claimed.id,
                    claimed.attempt,
                    end.outcome,
                    end.took,
                    now,
                    claimed.flagged or held.wished is not None,
                    end.delay,
                    end.result,
                    end.exception_name,
                    end.exception_message,
                    end.exception_traceback,
                )
            )
            if end.context is not None:
                contexts.append(ContextWrite(claimed, held.version + 1, end.context))
            if end.added:
                added.append((claimed.id, [wire.unpack(task) for task in end.added]))
        self._tell.settler.tell(Outcomes(settled, contexts, self._logs_so_far(), added))
        self._tell.claimer.tell(Freed(self._number, len(settled)))

    def _note_context(self, no: int, value: str) -> None:
        if held := self._held.get(no):
            held.version += 1
            self._contexts[no] = ContextWrite(held.claimed, held.version, value)

    def _note_logs(self, lines: Iterable[wire.LogLine]) -> None:
        now = time.monotonic()
        for line in lines:
            if held := self._held.get(line.no):
                self._logs.append(
                    LogWrite(held.claimed, now - line.ago, line.level, line.logger, line.message, line.exception)
                )

    def _logs_so_far(self) -> list[LogWrite]:
        logs, self._logs = self._logs, []
        return logs

    def _tick(self, now: float) -> None:
        if now - self._flushed_at >= FLUSH_EVERY and (self._contexts or self._logs):
            self._flushed_at = now
            self._tell.recorder.tell(Writes(list(self._contexts.values()), self._logs_so_far()))
            self._contexts = {}
        if now - self._pinged_at >= 5:
            self._pinged_at = now
            self._process.send(wire.Ping(0))
        if self._leave_by is not None and now > self._leave_by:
            self._process.kill()
        for no, held in islice(self._held.items(), self._argument.slots):
            held.started = held.started or now
            if self._is_overdue(held, now):
                self._culprits.add(no)
        if self._culprits:
            self._process.kill()

    def _is_overdue(self, held: Held, now: float) -> bool:
        timeout = held.claimed.timeout
        assert held.started is not None
        if timeout is not None and now > held.started + timeout + KILL_GRACE:
            return True
        return held.wished is not None and now > held.wished + WISH_GRACE

    def _interrupt(self, ids: Iterable[UUID], why: Why) -> None:
        wanted = set(ids)
        if not wanted:
            return
        for no, held in self._held.items():
            if held.claimed.id in wanted and held.why is None:
                held.wished, held.why = time.monotonic(), why
                self._process.send(wire.Interrupt(no, why))

    def _give_back(self, unstarted: list[Held]) -> None:
        self._tell.settler.tell(Unstarted([held.claimed for held in unstarted]))
        self._tell.claimer.tell(Freed(self._number, len(unstarted)))

    def _bury(self, code: int) -> None:
        """Account for what the process held when it died: what ran, what was to blame, what had not started."""
        now = time.monotonic()
        running = list(islice(self._held.items(), self._argument.slots))
        settled = [self._posthumous(no, held, now) for no, held in running]
        self._give_back([held for _, held in list(self._held.items())[len(running) :]])
        self._tell.settler.tell(Outcomes(settled, list(self._contexts.values()), self._logs_so_far(), []))
        self._held.clear()
        self._vitals.memory.pop(self._number, None)
        self._tell.claimer.tell(WorkerLeft(self._number))
        self._tell.supervisor.tell(WorkerGone(self._number, code, self._failure))

    def _posthumous(self, no: int, held: Held, now: float) -> Settled:
        claimed = held.claimed
        if no in self._culprits:
            verdict = _verdict_on_culprit(held)
        elif self._culprits or self._leave_by is not None:
            verdict = INTERRUPTED  # the process was killed, and not for this one
        else:
            verdict = after_death(claimed.crashes)
        return Settled(
            claimed.lease,
            claimed.id,
            claimed.attempt,
            verdict.outcome,
            now - (held.started or now),
            now,
            claimed.flagged or held.wished is not None,
            verdict.delay,
            None,
            verdict.exception_name,
            verdict.exception_message,
            None,
        )


def _verdict_on_culprit(held: Held) -> Verdict:
    """What becomes of an attempt that did not end when it should have, and had to be killed with its process."""
    if held.why is not None:
        return after_interrupt(held.why)
    assert held.claimed.timeout is not None
    return after_timeout(held.claimed.timeout, held.claimed, random.random())  # noqa: S311  # spreads retries


def _attempt(no: int, claimed: Claimed) -> wire.Attempt:
    return wire.Attempt(
        no,
        claimed.id.bytes,
        claimed.attempt,
        claimed.name,
        claimed.function,
        claimed.executor,
        claimed.args,
        claimed.kwargs,
        claimed.context,
        claimed.timeout,
        claimed.failures,
        claimed.timeouts,
        claimed.max_retries,
    )
