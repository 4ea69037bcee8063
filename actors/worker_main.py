"""The async worker: runs attempts as asyncio tasks on one loop, many at once, and answers its supervisor."""

from __future__ import annotations

import asyncio
import math
import os
import socket
import sys
import time
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from contextvars import Context, copy_context
from typing import Any, Final, assert_never

import msgspec

from ..runtime import wire
from ..runtime.blocking import block_on
from ..runtime.callables import Functions
from ..runtime.current import Running, Workplace
from ..runtime.execute import interrupted_early, run
from ..runtime.framing import Mailbox
from ..runtime.lifecycle import Why
from ..runtime.logging import Capture
from ..runtime.process import open_parent_mailbox
from ..runtime.stacks import MARKS, marked
from ..runtime.threads import inherit_context
from .reporter import Reporter
from .surroundings import NOT_READY, Surroundings, why_not
from .worker_backend import WorkerBackend, workplace

_SHORTEST_ALARM: Final = 0.001  # seconds; the loop's clock is coarser than the deadlines
_ROBBED: Final = 1.0  # seconds that an alarm is late when somebody has blocked the loop
_LEFTOVERS: Final = 1.0  # seconds for asyncio tasks that outlived their attempt


async def main(sock: socket.socket, argument: wire.WorkerArgument) -> None:
    """Work until the supervisor drains this process; see runtime/wire.py for what both say."""
    early: list[wire.ToWorker] = []
    worker: AsyncWorker | None = None

    def receive(message: wire.ToWorker) -> None:
        if worker is None:
            early.append(message)
        else:
            worker.receive(message)

    mailbox = await open_parent_mailbox(sock, msgspec.msgpack.Decoder(wire.ToWorker), receive)
    worker = AsyncWorker(mailbox, argument)
    for message in early:
        worker.receive(message)
    await worker.live()


class AsyncWorker:
    """One worker process as seen from inside. Attempts start in the order in which they came, `slots` at most."""

    def __init__(self, mailbox: Mailbox[Any], argument: wire.WorkerArgument) -> None:
        self._mailbox = mailbox
        self._argument = argument
        self._loop = asyncio.get_running_loop()
        self._reporter = Reporter(mailbox, self._sent)
        self._capture = Capture(self._reporter.lines)
        inherit_context()
        self._backend = WorkerBackend(mailbox.send_threadsafe, signs=argument.signs)
        self._workplace = workplace(self._reporter, self._backend, block_on(self._loop))
        self._functions: Functions
        self._context: Context  # of each attempt at first: what one sets, the next one must not find
        self._slots = 0  # until it is active
        self._runs = marked(AsyncWorker._run)
        self._waiting: deque[wire.Attempt] = deque()
        self._running: dict[int, Running] = {}
        self._activate = asyncio.Event()
        self._drained = asyncio.Event()
        self._untold = 0  # ends that have not left this process
        self._draining = False
        self._alarm: asyncio.TimerHandle | None = None
        self._alarm_at = math.inf

    async def live(self) -> None:
        """Import, become active when told to, work, and return when drained."""
        self._capture.install()
        try:
            surroundings = Surroundings(self._argument, self._backend)
            self._workplace.app = surroundings.app
            self._functions = Functions(surroundings.allowed, self._capture.install)
            self._capture.install()
            self._mailbox.send(wire.Ready(surroundings.schedules()))
            await self._activate.wait()
            if not self._draining:
                await surroundings.open()
        except BaseException as error:
            await self._give_up(error)
        self._capture.install()
        self._start_work()
        await self._drained.wait()
        await surroundings.close()
        await _cancel_leftovers()
        self._reporter.flush()
        self._mailbox.send(wire.Bye())
        await self._mailbox.close()

    def receive(self, message: wire.ToWorker) -> None:
        match message:
            case wire.Run(attempts):
                self._accept(attempts)
            case wire.Ping(n):
                self._mailbox.send(wire.Pong(n, [no for no, running in self._running.items() if running.why]))
            case wire.Interrupt(no, why):
                self._interrupt_one(no, Why(why))
            case wire.Answer():
                self._backend.answered(message)
            case wire.Knows(functions):
                self._mailbox.send(wire.Stances([self._functions.stance(function) for function in functions]))
            case wire.Activate():
                self._activate.set()
            case wire.HandBack():
                self._hand_back()
            case wire.Drain(grace):
                self._drain(grace)
            case _:
                assert_never(message)

    def _start_work(self) -> None:
        if self._draining:
            return
        self._slots = self._argument.slots
        self._context = copy_context()
        self._loop.set_default_executor(ThreadPoolExecutor(max(self._slots, 32), "task"))
        self._mailbox.send(wire.Active(self._slots))
        self._fill()

    async def _give_up(self, error: BaseException) -> None:
        self._reporter.flush()
        self._mailbox.send(wire.NotReady(why_not(error)))
        await self._mailbox.close()
        sys.stdout.flush()
        os._exit(NOT_READY)  # what a half-imported application has started would hold up an ordinary exit

    def _accept(self, attempts: list[wire.Attempt]) -> None:
        if self._draining:
            self._mailbox.send(wire.Returned([attempt.no for attempt in attempts]))
            return
        self._waiting.extend(attempts)
        self._fill()

    def _fill(self) -> None:
        # Whoever took the process along before these are told would leave the supervisor to believe that they still ran
        # and that he had not begun.
        while self._waiting and len(self._running) + self._untold < self._slots:
            self._start(self._waiting.popleft())

    def _start(self, attempt: wire.Attempt) -> None:
        running = Running(attempt, self._workplace)
        self._running[attempt.no] = running
        run_marked = self._runs[attempt.no % MARKS]
        running.task = self._loop.create_task(run_marked(self, running), context=self._context.copy())

    async def _run(self, running: Running) -> None:
        if running.why is None:
            running.begin()
            if running.deadline is not None and running.deadline < self._alarm_at:
                self._set_alarm(running.deadline)
            end = await run(running, self._functions)
        else:
            end = interrupted_early(running)
        del self._running[running.attempt.no]
        running.task = None  # its context holds the attempt: nobody should have to find such circles
        self._report(end)
        if self._draining and not self._running:
            self._drained.set()

    def _report(self, end: wire.End | wire.Unknown) -> None:
        self._untold += 1
        self._reporter.ended(end)

    def _sent(self, count: int) -> None:
        self._loop.call_soon(self._told, count)

    def _told(self, count: int) -> None:
        self._untold -= count
        self._fill()

    def _set_alarm(self, deadline: float) -> None:
        if self._alarm is not None:
            self._alarm.cancel()
        self._alarm_at = deadline
        self._alarm = self._loop.call_later(max(deadline - time.monotonic(), _SHORTEST_ALARM), self._ring)

    def _ring(self) -> None:
        """Time out what is past its deadline. One alarm for all: most tasks end long before theirs.

        When somebody has kept the loop to himself, each task that had no use of its time meanwhile gets it back, once.
        """
        now = time.monotonic()
        robbed = now - self._alarm_at
        self._alarm_at = math.inf
        nearest = math.inf
        for running in self._running.values():
            if running.deadline is None or running.why is not None:
                continue
            if running.deadline <= now and robbed > _ROBBED and not running.spared:
                running.spared = True
                running.deadline = now + robbed
            if running.deadline <= now:
                self._interrupt(running, Why.TIMEOUT)
            else:
                nearest = min(nearest, running.deadline)
        if nearest < math.inf:
            self._set_alarm(nearest)

    def _interrupt_one(self, no: int, why: Why) -> None:
        running = self._running.get(no)
        if running is not None:
            self._interrupt(running, why)
            return
        for attempt in self._waiting:
            if attempt.no == no:
                self._waiting.remove(attempt)
                self._report(_unstarted(attempt, self._workplace, why))
                return

    def _interrupt(self, running: Running, why: Why) -> None:
        if running.why is not None:
            return
        running.why = why
        # One that has not begun must not be cancelled: its coroutine would end without a line of it having run.
        if running.started is not None and running.task is not None:
            running.task.cancel()

    def _drain(self, grace: float) -> None:
        if self._draining:
            return
        self._draining = True
        self._activate.set()
        self._hand_back()
        if self._running:
            self._loop.call_later(grace, self._interrupt_all)
        else:
            self._drained.set()

    def _hand_back(self) -> None:
        if self._waiting:
            self._mailbox.send(wire.Returned([attempt.no for attempt in self._waiting]))
            self._waiting.clear()

    def _interrupt_all(self) -> None:
        for running in self._running.values():
            self._interrupt(running, Why.DRAIN)


async def _cancel_leftovers() -> None:
    """End what outlived its attempt and the application, so that the interpreter has nothing to complain of."""
    leftovers = asyncio.all_tasks() - {asyncio.current_task()}
    for each in leftovers:
        each.cancel()
    if leftovers:
        await asyncio.wait(leftovers, timeout=_LEFTOVERS)


def _unstarted(attempt: wire.Attempt, workplace: Workplace, why: Why) -> wire.End:
    running = Running(attempt, workplace)
    running.why = why
    return interrupted_early(running)
