"""Tell the supervisor what happens in a worker: ends, contexts, log lines; batched, in an order that loses nothing."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from threading import get_ident
from typing import Any, Final

from ..runtime import wire
from ..runtime.current import Running
from ..runtime.framing import FrameTooLarge, Mailbox
from ..runtime.lifecycle import refused
from ..runtime.logging import Lines

CONTEXT_PAUSE: Final = 0.1  # seconds between two writes of contexts


def _to_nobody(_: int) -> None: ...


class Reporter:
    """Made on the loop of the mailbox; all but `ended` and `flush` may be called on any thread.

    `sent` is told how many ends leave the process with the next turn of the loop.
    """

    def __init__(self, mailbox: Mailbox[Any], sent: Callable[[int], object] = _to_nobody) -> None:
        self.lines = Lines(self._wake)
        self._mailbox = mailbox
        self._sent = sent
        self._loop = asyncio.get_running_loop()
        self._thread = get_ident()
        self._ends: list[wire.End] = []
        self._changed: deque[Running] = deque()  # other threads may add while it is emptied
        self._reporting = False  # a report of them is to come

    def ended(self, end: wire.End | wire.Unknown) -> None:
        """Report an end with the others of this turn of the loop, after the lines that were logged before it."""
        if isinstance(end, wire.Unknown):
            self._mailbox.send(end)
            self._sent(1)
            return
        if not self._ends:
            self._loop.call_soon(self.flush)
        self._ends.append(end)

    def ended_threadsafe(self, end: wire.End | wire.Unknown) -> None:
        """The same from any thread."""
        self._loop.call_soon_threadsafe(self.ended, end)

    def context_changed(self, running: Running) -> None:
        """Report a context a little later, as it stands then; its end may overtake it and takes it along."""
        self._changed.append(running)
        if self._reporting:
            return
        try:
            self._reporting = True
            if get_ident() == self._thread:
                self._report_contexts_later()
            else:
                self._loop.call_soon_threadsafe(self._report_contexts_later)
        except BaseException:  # a plain function may be interrupted anywhere
            self._reporting = False
            raise

    def commit(self, running: Running, call: int) -> None:
        """Ask for the whole context, as it stands, to be stored; the answer to `call` says that it is."""
        if get_ident() == self._thread:
            self._commit(running, call)
        else:
            self._loop.call_soon_threadsafe(self._commit, running, call)

    def flush(self) -> None:
        """Send lines and ends now."""
        for frame in self.lines.take() if self.lines else ():
            self._mailbox.send(frame)
        if self._ends:
            ends, self._ends = self._ends, []
            self._send_ends(ends)
            self._sent(len(ends))

    def _wake(self) -> None:
        if get_ident() == self._thread:
            self._loop.call_soon(self.flush)
        else:
            self._loop.call_soon_threadsafe(self.flush)

    def _report_contexts_later(self) -> None:
        self._loop.call_later(CONTEXT_PAUSE, self._report_contexts)

    def _report_contexts(self) -> None:
        self._reporting = False  # at first: whoever comes from here on asks for another one
        while self._changed:
            running = self._changed.popleft()
            value = None if running.over or running.context is None else running.context.take_committed()
            if value is not None:
                self._mailbox.send(wire.ContextChanged(running.attempt.no, value))

    def _commit(self, running: Running, call: int) -> None:
        # Taken where it is sent: what is taken on another thread could be overtaken by what was taken after it.
        value = None if running.context is None else running.context.take()
        self._mailbox.send(wire.Commit(call, running.attempt.no, value))

    def _send_ends(self, ends: list[wire.End]) -> None:
        """Send as few frames as their limit allows; what is too large even alone has failed."""
        try:
            self._mailbox.send(wire.Ended(ends))
        except FrameTooLarge as error:
            if len(ends) == 1:
                self._mailbox.send(wire.Ended([_too_large(ends[0], error)]))
                return
            middle = len(ends) // 2
            self._send_ends(ends[:middle])
            self._send_ends(ends[middle:])


def _too_large(end: wire.End, error: FrameTooLarge) -> wire.End:
    verdict = refused("SerializationError", error)
    return wire.End(
        end.no,
        verdict.outcome,
        end.took,
        exception_name=verdict.exception_name,
        exception_message=verdict.exception_message,
    )
