"""One task on its way into the database: what becomes of it, and of the hooks and parents that it waits for."""

from __future__ import annotations

from typing import Protocol
from uuid import UUID

import msgspec
from msgspec.structs import replace

from . import hooks
from .codec import encode_json
from .hooks import HookTask
from .task import NewTask


class Home(Protocol):
    """Where a task waits until it is written: an outbox."""

    connection: object | None

    async def settle(self, entry: Entry) -> None:
        """Write what was added up to this task."""


class Entry(msgspec.Struct, eq=False):
    """One task on its way. `created` is None before it is written, False when it was there, or a unique task, `winner`,
    stands for it.

    `family` are the parents that were not written when it was added. `expected`: somebody is about to wait for its end.
    """

    task: NewTask
    home: Home
    family: tuple[tuple[UUID, Entry], ...] = ()
    seen: HookTask | None = None
    winner: UUID | None = None
    created: bool | None = None
    error: Exception | None = None
    asked: bool = False
    expected: bool = False
    tried: bool = False

    @property
    def id(self) -> UUID:
        """The id of the task that stands."""
        return self.task.id if self.winner is None else self.winner

    def __repr__(self) -> str:
        return f"Entry({self.id})"  # without the arguments: loguru shows the variables of a traceback

    def is_decided(self) -> bool:
        """Whether it was written, or refused."""
        return self.created is not None or self.error is not None

    def ask_hooks(self) -> None:
        """Call the sync pre-create hooks; what they raise goes through."""
        self.seen = HookTask.of(self.task)
        hooks.refuse_or_change(self.seen)
        self.take_context()

    def take_context(self) -> None:
        """Let the task have the context that hooks have made. Raises SerializationError: it can't be kept."""
        if self.seen is not None:
            context = encode_json(self.seen.context) if self.seen.context else None
            self.task = replace(self.task, context=context)


def not_awaited(entry: Entry) -> str:
    """What is to be said of a task that was added on a connection and never written."""
    return (
        f"Task {entry.id} ({entry.task.reference}) was added on a connection and never awaited, so it is not written: "
        "write `await tasks.on(connection).add_task(...)`."
    )
