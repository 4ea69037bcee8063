"""The queue as the task sees it that runs here: what it adds is written with its success, under ids of its own."""

from __future__ import annotations

from functools import cache
from operator import attrgetter
from typing import TypeVar, cast
from uuid import UUID

import msgspec

from .backend import Backend
from .client import Client
from .current import Running, get_running
from .errors import InvalidState
from .ids import DerivedIds
from .outbox import Outbox
from .settings import Settings
from .task import LOCAL, NewTask

C = TypeVar("C", bound=Client)

# not when it is due, nor for how long: a second run reads the clock at another time
_what_for = attrgetter(
    "executor",
    "args",
    "kwargs",
    "name",
    "channel",
    "key",
    "priority",
    "max_retries",
    "timeout",
    "unique_key",
    "auto_remove",
    "on_parent_failure",
    "parents",
    "context",
)


def running_task() -> Running:
    """The attempt that this code runs for.

    Raises:
        InvalidState: no task runs here.
    """
    running = get_running()
    if running is None:
        raise InvalidState(
            "QueuedTasks.current() is for code inside a task: use Inject(QueuedTasks) in a route, "
            "`async with QueuedTasks.connect()` elsewhere."
        )
    return running


def of_attempt(kind: type[C], running: Running) -> C:
    """A handle for what an attempt adds. A second run of the same task comes to the same ids. Hold `making`."""
    ids = running.ids = running.ids or DerivedIds(UUID(bytes=running.attempt.id))

    def derive(task: NewTask) -> UUID:
        return ids.next(msgspec.json.encode((_function_of(task), *_what_for(task))))

    backend = cast("Backend", running.workplace.backend)
    if running.outbox is None:
        running.outbox = Outbox(backend, together=True, derive=derive)
    return kind(backend, running.outbox, _settings_here())


def _function_of(task: NewTask) -> object:
    if not task.function.startswith(LOCAL):
        return task.function
    from .local import constants_of  # only now: few need it

    return task.reference, constants_of(task.function)


@cache
def _settings_here() -> Settings:
    return Settings()
