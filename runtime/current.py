"""The attempt that runs here: what user code can ask about it, and what its worker notes about it."""

from __future__ import annotations

import time
from collections.abc import Callable, Coroutine
from concurrent.futures import Future
from contextvars import ContextVar
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from threading import Lock
from typing import TYPE_CHECKING, Any, Protocol, TypeVar
from uuid import UUID

import msgspec

from . import wire
from .lifecycle import Why

if TYPE_CHECKING:
    from asyncio import Task

    from .ids import DerivedIds
    from .nested import Context
    from .outbox import Outbox

T = TypeVar("T")

making = Lock()  # what an attempt makes when it is first asked for: threads that ask at once must get the same


@dataclass(frozen=True, slots=True)
class CurrentTask:
    """The task that is running; `deadline` is None without a timeout, `app` without `--app`."""

    id: UUID
    name: str
    attempt: int
    deadline: datetime | None
    app: Any  # the user's own application


class Block(Protocol):
    """How a thread without an event loop waits for what is async."""

    def __call__(self, work: Coroutine[Any, Any, T], *, own_code: bool = False) -> T:
        """The result of `work`; `own_code`: it may call code of the user's, which wants the loop of the start hooks."""


class Workplace:
    """What all attempts in one worker process share."""

    __slots__ = ("app", "backend", "block", "commit_context", "context_changed")

    def __init__(
        self,
        context_changed: Callable[[Running], None],
        backend: object | None = None,
        commit_context: Callable[[Running], Future[str | None]] | None = None,
        block: Block | None = None,
    ) -> None:
        self.app: object | None = None
        self.context_changed = context_changed  # called on any thread, when a context has something to send
        self.commit_context = commit_context  # likewise; done when what it holds by then is durable
        self.backend = backend
        self.block = block


class Running(msgspec.Struct, eq=False):
    """An attempt from the moment that it may start until its end is decided; instants are of time.monotonic()."""

    attempt: wire.Attempt
    workplace: Workplace
    started: float | None = None
    deadline: float | None = None
    why: Why | None = None  # set before it is interrupted
    task: Task[None] | None = None  # of asyncio, which runs it in an async worker
    over: bool = False
    spared: bool = False  # it was given back the time that another one took
    context: Context | None = None  # made when it is first used
    outbox: Outbox | None = None  # what is added without an await; written with the outcome if that is `done`
    handle: object | None = None  # the queue as this attempt sees it, made when it is first asked for
    twin: object | None = None  # the same for its threads without an event loop
    ids: DerivedIds | None = None  # of the tasks that this one adds, made with the first handle

    def begin(self) -> None:
        """Start the clock."""
        self.started = now = time.monotonic()
        timeout = self.attempt.timeout
        if timeout is not None:
            self.deadline = now + timeout


running_here: ContextVar[Running | None] = ContextVar("running_here", default=None)


def get_running() -> Running | None:
    """The attempt on whose behalf this code runs; None outside, and in what outlived its attempt."""
    running = running_here.get()
    return None if running is None or running.over else running


def get_current_task() -> CurrentTask | None:
    """The task that this code runs for, also in the threads and asyncio tasks that it starts; None outside a task."""
    running = get_running()
    if running is None:
        return None
    attempt = running.attempt
    return CurrentTask(
        UUID(bytes=attempt.id), attempt.name, attempt.attempt, _wall_time(running.deadline), running.workplace.app
    )


def _wall_time(instant: float | None) -> datetime | None:
    return None if instant is None else datetime.now(UTC) + timedelta(seconds=instant - time.monotonic())
