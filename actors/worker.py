"""Stand for one worker process: what it holds, when it is overdue, how its end is accounted for."""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable, Iterable
from ctypes import c_uint64
from itertools import islice
from multiprocessing.sharedctypes import RawValue
from typing import assert_never
from uuid import UUID

import msgspec
from loguru import logger

from ..runtime import wire
from ..runtime.actor import Actor
from ..runtime.lifecycle import Why
from ..runtime.process import WorkerProcess
from ..runtime.signing import Seals
from ..runtime.task import Claimed, ContextWrite, LogWrite, NewTask, Settled, Stance
from .console import relay
from .held import OVERSTAY, Held, ended, expired, has_overstayed, is_on_last_life, refused, runs
from .in_flight import InFlight
from .judgement import Judgement, bereft
from .messages import (
    Activate,
    Answers,
    Asked,
    AskerGone,
    Colleagues,
    Commit,
    Died,
    Drain,
    Freed,
    HandBack,
    LeasesGone,
    Outcomes,
    Overgrown,
    Parked,
    Parted,
    Place,
    Retire,
    Schedules,
    Tick,
    Unstarted,
    Wishes,
    WorkerGone,
    WorkerJoined,
    WorkerLeft,
    WorkerMessage,
    WorkerOver,
    WorkerReady,
)
from .notes import Notes
from .pulse import Pulse
from .vitals import Vitals, WorkerVitals

DRAIN_GRACE = 3.0  # seconds beyond the grace of a shutdown that a worker has to leave

_DECODER = msgspec.msgpack.Decoder(wire.FromWorker)


class Worker(Actor[WorkerMessage]):
    """One worker process from its start to its end; another one takes its place, not this actor's next instance.

    The process runs what it is given in order, so nobody needs to be told of a start: see InFlight. Of tasks that are
    on their last life it is given one at a time.
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
        seals: Seals | None = None,
    ) -> None:
        self._seals = seals
        self._number = number
        self._entry = entry
        # Each process has a number of its own, which it shares with nobody but its supervisor.
        begun = RawValue(c_uint64) if argument.kind == "sync" else None
        self._argument = msgspec.structs.replace(argument, begun=begun)
        self._tell = colleagues
        self._vitals = vitals
        self._own = vitals.posts[number] = WorkerVitals(argument.slots)
        self._standby = standby
        self._ready = False
        self._held = InFlight(argument.slots, begun)
        self._kept_back: deque[Held] = deque()  # on their last life, while another such task runs here
        self._notes = Notes(vitals)
        self._leave_by: float | None = None
        self._failure: str | None = None
        self._relieved = 0.0  # when it was last asked to return what waits
        self._judgement: Judgement | None = None  # once it is killed
        self._retires: float | None = None  # it takes no more; so many seconds may its stop hooks take
        self._active = False
        self._parted = False
        self._dead = False
        self._over = False

    async def started(self) -> None:
        self._process = WorkerProcess(self._entry, self._argument)  # type: ignore[arg-type]  # either kind of entry
        self._pulse = Pulse(
            f"worker {self._number}",
            self._process,
            self._own,
            lambda answers: self._tell.claimer.tell(Answers(self._number, answers)),
            alone=self._argument.slots == 1,
        )
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
                if held := self._held.get(no):
                    self._notes.context(no, held.note_context(value))
            case wire.Commit():
                self._commit(message)
            case wire.Logged(lines):
                self._notes.log(lines, self._held)
            case Tick():
                self._tick(time.monotonic())
            case wire.Pong(_, late):
                self._pulse.hear(late, self._held.running(), time.monotonic())
            case wire.Call():
                self._tell.desk.tell(Asked(message, self._number, self._process.send))
            case wire.Ready() | Activate() | wire.Active() | wire.NotReady() | wire.Bye():
                self._come_up(message)
            case Wishes(cancels, stops):
                self._interrupt_tasks(cancels, Why.CANCEL)
                self._interrupt_tasks(stops, Why.STOP)
            case LeasesGone(leases):
                self._interrupt((no for no, held in self._held.items() if held.claimed.lease in leases), Why.DRAIN)
            case HandBack():
                self._return_unstarted()
            case Retire() | Overgrown() | Drain():
                self._go(message)
            case wire.Returned(nos):
                self._give_back([self._held.pop(no).claimed for no in nos if no in self._held])
                self._run_next_kept_back()
                self._note_load()
            case wire.Unknown(no, stance):
                self._park(no, stance)
            case wire.Knows():
                self._process.send(message)
            case wire.Stances():
                self._tell.claimer.tell(message)
            case wire.Record():
                relay(message, self._number)
            case Died(code):
                self._bury(code)
            case Parted():
                self._part()
            case _:
                assert_never(message)

    def _come_up(self, message: wire.Ready | Activate | wire.Active | wire.NotReady | wire.Bye) -> None:
        match message:
            case wire.Ready(schedules):
                if self._tell.scheduler is not None and self._argument.kind == "async":
                    self._tell.scheduler.tell(Schedules(tuple(schedules)))
                self._ready = True
                self._tell.supervisor.tell(WorkerReady(self._number))
                if not self._standby:
                    self._process.send(wire.Activate())
            case Activate():
                self._standby = False
                self._process.send(wire.Activate())
            case wire.Active() if self._leave_by is not None:
                pass  # it was told to leave while its start hooks ran
            case wire.Active(slots):
                self._active = True
                self._own.first_memory = self._process.usage().memory
                self._own.idle_since = time.monotonic()
                joined = WorkerJoined(self._number, self._argument.kind == "sync", slots, self.ref)
                self._tell.claimer.tell(joined)
                self._tell.supervisor.tell(joined)
            case wire.NotReady(traceback):
                self._failure = traceback
            case wire.Bye():
                pass  # its death follows

    def _place(self, attempts: list[Claimed]) -> None:
        if self._leave_by is not None or self._dead:
            self._give_back(attempts)
            return
        now = time.monotonic()
        late = [claimed for claimed in attempts if claimed.expired]
        if late:
            self._tell.settler.tell(Outcomes([expired(claimed, now) for claimed in late], [], [], []))
            self._tell.claimer.tell(Freed(self._number, len(late)))
        if self._seals is not None:
            attempts = self._refuse_forged(attempts, self._seals)
        sound = [claimed for claimed in attempts if not claimed.expired] if late else attempts
        last = [claimed for claimed in sound if is_on_last_life(claimed)]
        self._kept_back.extend(Held(claimed, now) for claimed in last)
        self._run([claimed for claimed in sound if not is_on_last_life(claimed)] if last else sound)
        self._run_next_kept_back()
        self._note_load()

    def _refuse_forged(self, attempts: list[Claimed], seals: Seals) -> list[Claimed]:
        """End what is not signed as it should be; return the rest."""
        now = time.monotonic()
        sound: list[Claimed] = []
        settled: list[Settled] = []
        logs: list[LogWrite] = []
        for claimed in attempts:
            flaw = None if claimed.expired else seals.flaw(claimed)
            if flaw is None:
                sound.append(claimed)
                continue
            logger.error("task {} ({}) is refused: {}", claimed.id, claimed.name, flaw)
            settled.append(refused(claimed, flaw, now))
            logs.append(LogWrite(claimed, now, logging.ERROR, __name__, f"refused: {flaw}", None))
        if settled:
            self._tell.settler.tell(Outcomes(settled, [], logs, []))
            self._tell.claimer.tell(Freed(self._number, len(settled)))
        return sound

    def _run(self, attempts: Iterable[Claimed]) -> None:
        numbered = self._held.send(attempts, time.monotonic())
        for frame in runs(numbered, verified=self._seals is not None):
            self._process.send(frame)

    def _run_next_kept_back(self) -> None:
        if self._kept_back and self._on_last_life() is None:
            self._run([self._kept_back.popleft().claimed])

    def _on_last_life(self) -> Held | None:
        return next((held for held in self._held.values() if is_on_last_life(held.claimed)), None)

    def _ended(self, ends: list[wire.End]) -> None:
        now = time.monotonic()
        settled: list[Settled] = []
        contexts: list[ContextWrite] = []
        added: list[tuple[Settled, list[NewTask]]] = []
        for end in ends:
            held = self._held.pop(end.no, None)
            if held is None:
                continue
            settled.append(ended(held, end, now))
            if end.context is not None:
                held.note_context(end.context)
            if held.context is not None:
                # Even if the recorder has it: it may come to write it after this, when the lease is closed.
                contexts.append(held.context)
                self._notes.forget_context(end.no)
            if end.added:
                added.append((settled[-1], [wire.unpack(task) for task in end.added]))
        self._tell.settler.tell(self._notes.hand_over(settled, contexts, added))
        self._tell.claimer.tell(Freed(self._number, len(settled)))
        self._run_next_kept_back()
        self._own.ended += len(settled)
        self._note_load()

    def _commit(self, message: wire.Commit) -> None:
        held = self._held.get(message.no)
        if held is None:
            return  # it has ended: nobody waits for the answer
        if message.value is not None:
            held.note_context(message.value)
        if held.context is None:
            self._process.send(wire.Answer(message.call))
            return
        self._notes.forget_context(message.no)
        self._tell.recorder.tell(Commit(held.context, message.call, self._process.send))

    def _tick(self, now: float) -> None:
        if (writes := self._notes.take_due(now)) is not None:
            self._tell.recorder.tell(writes)
        for held in self._held.running().values():
            held.started = held.started or now
        if self._judgement is not None:
            return
        self._relieve(now)
        self._pulse.measure(now)
        judgement = self._pulse.tick(self._held.running(), now) if self._active else None
        if judgement is None and self._leave_by is not None and now > self._leave_by:
            judgement = Judgement("it did not leave in time")
        if judgement is not None:
            self._kill(judgement)

    def _relieve(self, now: float) -> None:
        """Its tasks have become slower than they were: others may start what waits for them."""
        waiting = next(islice(self._held.values(), self._argument.slots, None), None)
        if waiting is not None and now > max(waiting.placed, self._relieved) + OVERSTAY:
            self._relieved = now
            self._return_unstarted()
        elif self._kept_back and (ahead := self._on_last_life()) and has_overstayed(self._kept_back[0], ahead, now):
            self._hand_back()

    def _kill(self, judgement: Judgement) -> None:
        self._judgement = self._judgement or judgement
        self._process.kill()

    def _interrupt_tasks(self, ids: Iterable[UUID], why: Why) -> None:
        if wanted := set(ids):
            self._interrupt((no for no, held in self._held.items() if held.claimed.id in wanted), why)

    def _interrupt(self, nos: Iterable[int], why: Why) -> None:
        for no in nos:
            held = self._held[no]
            if held.why is None:
                held.wished, held.why = time.monotonic(), why
                self._process.send(wire.Interrupt(no, why))

    def _go(self, message: Retire | Overgrown | Drain) -> None:
        match message:
            case Retire(grace):
                self._retire(grace)
            case Overgrown(reason):
                self._kill(Judgement(reason, fatal=True))
            case Drain(grace):
                self._drain(grace)

    def _retire(self, grace: float) -> None:
        if self._retires is not None or self._leave_by is not None or self._dead:
            return
        if not self._active:
            self._drain(grace)
            return
        self._retires = grace
        self._tell.claimer.tell(WorkerLeft(self._number, self.ref))

    def _part(self) -> None:
        if self._dead and not self._over:
            self._over = True
            self._tell.supervisor.tell(WorkerOver(self._number))
        self._parted = True
        self._note_load()

    def _note_load(self) -> None:
        """What it holds has changed. One that retires leaves when that is nothing, and nothing can come."""
        self._own.busy = len(self._held) + len(self._kept_back)
        if self._own.busy:
            return
        self._own.idle_since = time.monotonic()
        if self._parted and self._retires is not None and self._leave_by is None and not self._dead:
            self._drain(self._retires)

    def _drain(self, grace: float) -> None:
        self._leave_by = time.monotonic() + grace + DRAIN_GRACE
        self._hand_back()
        if self._ready:
            self._process.send(wire.Drain(grace))
        else:
            self._kill(Judgement("it still imports"))  # nothing is lost, and nobody has to wait for that

    def _hand_back(self) -> None:
        self._give_back([held.claimed for held in self._kept_back])
        self._kept_back.clear()
        self._note_load()

    def _return_unstarted(self) -> None:
        self._hand_back()
        self._process.send(wire.HandBack())

    def _give_back(self, unstarted: list[Claimed]) -> None:
        if unstarted:
            self._tell.settler.tell(Unstarted(unstarted))
            self._tell.claimer.tell(Freed(self._number, len(unstarted), run=False))

    def _park(self, no: int, stance: Stance) -> None:
        if (held := self._held.pop(no, None)) is not None:
            self._notes.forget_context(no)
            self._tell.claimer.tell(wire.Stances([stance]))
            self._tell.settler.tell(Parked([(held.claimed, stance)]))
            self._tell.claimer.tell(Freed(self._number, 1))
            self._run_next_kept_back()
            self._note_load()

    def _bury(self, code: int) -> None:
        """Account for what the process held when it died: what ran, what was to blame, what had not started."""
        self._dead = True
        begun = self._held.begun()
        settled = bereft(begun, self._held.running(), self._judgement, time.monotonic())
        contexts = [held.context for held in begun.values() if held.context is not None]
        self._tell.settler.tell(self._notes.hand_over(settled, contexts, []))
        self._give_back([held.claimed for no, held in self._held.items() if no not in begun])
        self._hand_back()
        self._held.clear()
        self._vitals.posts.pop(self._number, None)
        self._tell.claimer.tell(WorkerLeft(self._number, self.ref))
        self._tell.desk.tell(AskerGone(self._number))
        self._tell.supervisor.tell(WorkerGone(self._number, code, self._failure, self._judgement))
