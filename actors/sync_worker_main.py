"""The sync worker: runs plain functions one by one on the main thread, where a signal can interrupt them.

A thread of its own talks to the supervisor, so that a function may block for as long as it likes.
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
import time
from collections import deque
from contextlib import AbstractContextManager
from contextvars import copy_context
from threading import Condition, Event, Thread
from types import FrameType, TracebackType
from typing import Any, Final, assert_never

import msgspec
import uvloop

from ..runtime import wire
from ..runtime.blocking import block_on
from ..runtime.callables import Functions
from ..runtime.current import Running, Workplace
from ..runtime.execute import interrupted_early, run_blocking
from ..runtime.framing import Mailbox
from ..runtime.lifecycle import Interrupted, Why
from ..runtime.logging import Capture
from ..runtime.process import open_parent_mailbox
from ..runtime.threads import inherit_context
from .reporter import Reporter
from .surroundings import NOT_READY, Surroundings, why_not
from .worker_backend import WorkerBackend, workplace

_AT_ONCE: Final = 0.001  # seconds; 0 would stop the timer
_AGAIN: Final = 0.02  # seconds; a signal that comes just before a blocking call begins does not interrupt it


def main(sock: socket.socket, argument: wire.WorkerArgument) -> None:
    """Work until the supervisor drains this process; see runtime/wire.py for what both say."""
    line = Line()
    intercom = Intercom(sock, line, signs=argument.signs)
    intercom.start()
    _Work(intercom, line, argument).live()


class Line:
    """The attempts that wait for the main thread, and the one that it runs. For both threads."""

    def __init__(self) -> None:
        self.workplace: Workplace  # set before the first attempt comes
        self._changed = Condition()
        self._waiting: deque[Running] = deque()
        self._running: Running | None = None
        self._active = False
        self._draining = False

    def activate(self) -> None:
        with self._changed:
            self._active = True
            self._changed.notify()

    def wait_for_activation(self) -> bool:
        """Return once this worker is to take work; False when it is to leave instead."""
        with self._changed:
            self._changed.wait_for(lambda: self._active or self._draining)
            return not self._draining

    def extend(self, attempts: list[wire.Attempt]) -> list[int]:
        """Take attempts in; the numbers of those that it doesn't take any more."""
        with self._changed:
            if self._draining:
                return [attempt.no for attempt in attempts]
            self._waiting.extend(Running(attempt, self.workplace) for attempt in attempts)
            self._changed.notify()
            return []

    def next(self) -> Running | None:
        """The next attempt, when there is one; None when there will be none. The one before is over."""
        with self._changed:
            self._running = None
            self._changed.wait_for(lambda: self._waiting or self._draining)
            self._running = self._waiting.popleft() if self._waiting else None
            return self._running

    def interrupt(self, no: int | None, why: Why) -> Running | None:
        """Interrupt the attempt `no` (None: what runs); it is returned if it had not started."""
        with self._changed:
            running = self._running
            if running is not None and no in (None, running.attempt.no):
                if running.why is None:
                    running.why = why
                    signal.setitimer(signal.ITIMER_REAL, _AT_ONCE, _AGAIN)
                return None
            for waiting in self._waiting:
                if waiting.attempt.no == no:
                    waiting.why = why
                    self._waiting.remove(waiting)
                    return waiting
        return None

    def late(self) -> list[int]:
        """What runs, if it was told to end, or should have ended; hooks behind a function have a time of their own."""
        # An outcome is told once the hooks behind it have had their say on the context. So when this process is killed
        # for a hook that doesn't let go, the attempt can only be run again, whatever its function has done.
        with self._changed:
            running = self._running
            if running is None:
                return []
            overdue = running.deadline is not None and time.monotonic() > running.deadline
            return [running.attempt.no] if running.why or overdue else []

    def drain(self) -> list[int]:
        """Let nothing start any more; the numbers of what has not started."""
        with self._changed:
            self._draining = True
            self._changed.notify()
            return self.hand_back()

    def hand_back(self) -> list[int]:
        """Let go of what has not started; its numbers."""
        with self._changed:
            unstarted = [running.attempt.no for running in self._waiting]
            self._waiting.clear()
            return unstarted


class Intercom(Thread):
    """The thread that talks to the supervisor. Its attributes are there once `start` has returned."""

    def __init__(self, sock: socket.socket, line: Line, *, signs: bool) -> None:
        super().__init__(name="intercom", daemon=True)
        self.loop: asyncio.AbstractEventLoop
        self.mailbox: Mailbox[Any]
        self.reporter: Reporter
        self.backend: WorkerBackend
        self._sock = sock
        self._line = line
        self._signs = signs
        self._connected = Event()

    def start(self) -> None:
        super().start()
        self._connected.wait()

    def run(self) -> None:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(self._talk())

    def send(self, message: object) -> None:
        """Send from any thread, after what was reported before."""
        self.loop.call_soon_threadsafe(self._send, message)

    def leave(self, last: object) -> None:
        """Send what is left and a last message; return when the supervisor has it. From another thread."""
        asyncio.run_coroutine_threadsafe(self._close(last), self.loop).result()

    async def _talk(self) -> None:
        self.loop = asyncio.get_running_loop()
        early: list[wire.ToWorker] = []
        receive = early.append
        decoder = msgspec.msgpack.Decoder(wire.ToWorker)
        self.mailbox = await open_parent_mailbox(self._sock, decoder, lambda message: receive(message))
        self.reporter = Reporter(self.mailbox)
        self.backend = WorkerBackend(self.mailbox.send_threadsafe, signs=self._signs)
        self._line.workplace = workplace(self.reporter, self.backend)
        receive = self._receive
        for message in early:
            receive(message)
        self._connected.set()
        await asyncio.Event().wait()

    def _receive(self, message: wire.ToWorker) -> None:
        match message:
            case wire.Run(attempts):
                self._return(self._line.extend(attempts))
            case wire.Ping(n):
                self.mailbox.send(wire.Pong(n, self._line.late()))
            case wire.Interrupt(no, why):
                unstarted = self._line.interrupt(no, Why(why))
                if unstarted is not None:
                    self.reporter.ended(interrupted_early(unstarted))
            case wire.Answer():
                self.backend.answered(message)
            case wire.Knows():
                pass  # async workers are asked: here the main thread alone may import
            case wire.Activate():
                self._line.activate()
            case wire.HandBack():
                self._return(self._line.hand_back())
            case wire.Drain(grace):
                self._return(self._line.drain())
                self.loop.call_later(grace, self._line.interrupt, None, Why.DRAIN)
            case _:
                assert_never(message)

    def _return(self, nos: list[int]) -> None:
        if nos:
            self.mailbox.send(wire.Returned(nos))

    def _send(self, message: object) -> None:
        self.reporter.flush()
        self.mailbox.send(message)

    async def _close(self, last: object) -> None:
        self._send(last)
        await self.mailbox.close()


class _Work:
    """What the main thread does."""

    def __init__(self, intercom: Intercom, line: Line, argument: wire.WorkerArgument) -> None:
        self._intercom = intercom
        self._line = line
        self._argument = argument
        self._capture = Capture(intercom.reporter.lines)
        inherit_context()

    def live(self) -> None:
        self._capture.install()
        # One loop for all that is async here: what a start hook opens on it, a run hook can use.
        with asyncio.Runner() as runner:
            try:
                surroundings = Surroundings(self._argument, self._intercom.backend)
                self._line.workplace.app = surroundings.app
                self._line.workplace.block = block_on(self._intercom.loop, runner)
                self._capture.install()
                self._intercom.send(wire.Ready())
                wanted = self._line.wait_for_activation()
                if wanted:
                    runner.run(surroundings.open())
            except BaseException as error:
                self._give_up(error)
            self._capture.install()
            if wanted:
                self._intercom.send(wire.Active(self._argument.slots))
                self._work(Functions(surroundings.allowed, self._capture.install), runner)
            runner.run(surroundings.close())
        self._intercom.leave(wire.Bye())

    def _work(self, functions: Functions, runner: asyncio.Runner) -> None:
        interruptible = _Interruptible()
        begun = self._argument.begun
        assert begun is not None
        while (running := self._line.next()) is not None:
            begun.value = running.attempt.no
            running.begin()
            interruptible.running = running
            own = copy_context()  # what one task sets, the next one must not find
            end = own.run(run_blocking, running, functions, interruptible, runner)
            self._intercom.reporter.ended_threadsafe(end)

    def _give_up(self, error: BaseException) -> None:
        self._intercom.leave(wire.NotReady(why_not(error)))
        sys.stdout.flush()
        os._exit(NOT_READY)  # what a half-imported application has started would hold up an ordinary exit


class _Interruptible(AbstractContextManager[None]):
    """The block in which SIGALRM raises: once each time that it is entered, and only for a reason that the attempt has.

    It raises again where the function can't have heard of it: in a finalizer, a callback from C, parts of an import.

    Made once the application is there, which may have set a signal handler and a hook for itself.
    """

    def __init__(self) -> None:
        self.running: Running | None = None
        self._inside = False
        self._open = False  # inside, and nothing was raised yet
        signal.signal(signal.SIGALRM, self._signalled)
        self._report_unraisable = sys.unraisablehook
        sys.unraisablehook = self._unraisable

    def __enter__(self) -> None:
        running = self.running
        if running is not None and running.deadline is not None:
            remaining = running.deadline - time.monotonic()
            signal.setitimer(signal.ITIMER_REAL, max(remaining, 0) + _AT_ONCE, _AGAIN)
        self._inside = self._open = True
        self._raise_if_due()  # a signal that came before the line above had no effect

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, frames: TracebackType | None
    ) -> None:
        self._inside = self._open = False
        signal.setitimer(signal.ITIMER_REAL, 0)

    def _unraisable(self, unraisable: sys.UnraisableHookArgs) -> None:
        if not issubclass(unraisable.exc_type, Interrupted):
            self._report_unraisable(unraisable)
        elif self._inside:
            self._open = True
            signal.setitimer(signal.ITIMER_REAL, _AT_ONCE, _AGAIN)

    def _signalled(self, _number: int, frame: FrameType | None) -> None:
        while frame is not None:
            if frame.f_code is _Interruptible._unraisable.__code__:
                return  # where nothing can be raised either; the timer comes again
            frame = frame.f_back
        if self._open:
            self._raise_if_due()
        else:
            signal.setitimer(signal.ITIMER_REAL, 0)

    def _raise_if_due(self) -> None:
        running = self.running
        if not self._open or running is None:
            return
        if running.why is None:
            if running.deadline is None or time.monotonic() < running.deadline:
                return
            running.why = Why.TIMEOUT
        self._open = False
        signal.setitimer(signal.ITIMER_REAL, 0)
        raise Interrupted
