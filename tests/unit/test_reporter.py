"""What a worker reports of contexts, whichever threads change them."""

from __future__ import annotations

import asyncio
from collections import deque
from threading import Barrier
from typing import Any, cast
from uuid import UUID

import pytest

from queued_tasks.actors import reporter as module
from queued_tasks.actors.reporter import Reporter
from queued_tasks.runtime import wire
from queued_tasks.runtime.current import Running, Workplace
from queued_tasks.runtime.framing import Mailbox
from queued_tasks.runtime.nested import Context
from tests.waiting import wait_until

THREADS = 2


class Sent:
    """A mailbox that keeps the numbers of the attempts whose contexts it is to send."""

    def __init__(self) -> None:
        self.nos: list[int] = []

    def send(self, message: wire.ContextChanged) -> None:
        self.nos.append(message.no)


class Meeting(deque[Running]):
    """A queue behind whose append all threads have been before any of them goes on."""

    def __init__(self) -> None:
        super().__init__()
        self._all = Barrier(THREADS)

    def append(self, running: Running) -> None:
        super().append(running)
        self._all.wait(5)


def changed(no: int) -> Running:
    """An attempt whose context has just changed."""
    row = wire.Attempt(no, UUID(int=no).bytes, 1, "import", "app:load", 0, "[]", None, None, None, 0, 0, 3)
    running = Running(row, Workplace(lambda _: None, object()))
    running.context = Context()
    running.context.set("at", no)
    return running


async def test_contexts_that_threads_change_at_once_are_all_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "CONTEXT_PAUSE", 0.0)
    sent = Sent()
    reporter = Reporter(cast("Mailbox[Any]", sent))
    reporter._changed = Meeting()
    await asyncio.gather(*(asyncio.to_thread(reporter.context_changed, changed(no)) for no in range(THREADS)))
    await wait_until(lambda: sorted(sent.nos) == [*range(THREADS)], deadline=5)


async def test_after_an_interrupt_amid_a_change_contexts_are_reported_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "CONTEXT_PAUSE", 0.0)
    sent = Sent()
    reporter = Reporter(cast("Mailbox[Any]", sent))
    with monkeypatch.context() as patch:
        patch.setattr(module, "get_ident", _interrupted)
        with pytest.raises(KeyboardInterrupt):
            reporter.context_changed(changed(1))
    reporter.context_changed(changed(2))
    await wait_until(lambda: sent.nos == [1, 2], deadline=5)


def _interrupted() -> int:
    raise KeyboardInterrupt
