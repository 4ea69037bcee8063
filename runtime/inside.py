"""The queue as the task sees it that runs here: what it adds is written with its success, under ids of its own."""

from __future__ import annotations

from functools import cache
from itertools import count
from typing import TypeVar, cast
from uuid import UUID

from .backend import Backend
from .client import Client
from .current import Running, get_running
from .errors import InvalidState
from .ids import derived_id
from .outbox import Outbox
from .settings import Settings

C = TypeVar("C", bound=Client)


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

    ordinals = running.ordinals = running.ordinals or count(1)

    def make_id() -> UUID:
        return derived_id(UUID(bytes=running.attempt.id), next(ordinals))

    backend = cast("Backend", running.workplace.backend)
    if running.outbox is None:
        running.outbox = Outbox(backend, together=True, make_id=make_id)
    return kind(backend, running.outbox, _settings_here())


@cache
def _settings_here() -> Settings:
    return Settings()
