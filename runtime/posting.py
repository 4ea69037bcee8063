"""Tasks added in a transaction of the user's own: they commit, or roll back, with it.

They go to the inbox, whose rows servers find once the transaction has committed: nobody waits for it. Knows no driver:
an `Adapter` is what the user's connection looks like here.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol
from uuid import UUID

import msgspec
from loguru import logger

from . import hooks
from .backend import Backend
from .entry import Entry, not_awaited
from .errors import ConfigurationError, InvalidTask, SchemaOutdated
from .outbox import Derive, Outbox
from .task import NewTask

_NO_SCHEMA = ("42883", "42P01", "3F000")
_NO_RIGHT = "42501"


class Adapter(Protocol):
    """A connection of the user's as it is used here: for one statement with one text as its parameter."""

    connection: object

    async def post(self, tasks: str) -> str | None:
        """Run post_tasks.sql."""

    def post_now(self, tasks: str) -> str | None:
        """The same where it needs no await."""

    @property
    def wait(self) -> Callable[..., Any]:
        """Gives the result of a coroutine to code that is not async."""


class Postbox(Outbox):
    """Tasks for one connection. What is added waits for an await, which is an error to forget."""

    def __init__(self, adapter: Adapter, backend: Backend, derive: Derive | None) -> None:
        self.adapter = adapter
        self._poster = Poster(adapter, backend)
        super().__init__(self._poster, together=True, derive=derive)
        self.connection = adapter.connection

    def batch(self) -> Outbox:
        return Postbox(self.adapter, self._poster.backend, self.derive)

    def __del__(self) -> None:
        if self.forgotten is not None:
            logger.error("{}", not_awaited(self.forgotten))


class ImmediatePostbox(Postbox):
    """Tasks for a connection that blocks: each is written when it is added."""

    def add(self, *entries: Entry) -> None:
        self.post_now(entries)

    async def put(self, wanted: Entry | None = None) -> None:  # noqa: ARG002  # nobody else writes here
        self.post_now(self._take(len(self._entries)))

    def batch(self) -> Outbox:
        return _Collected(self.adapter, self._poster.backend, self.derive)

    def post_now(self, entries: Sequence[Entry]) -> None:
        """Write tasks without an await, unless a hook of the user's needs one."""
        if not entries:
            return
        if any(entry.seen is not None or entry.family for entry in entries):
            entries = self.adapter.wait(self._prepared(entries))
        tasks = self._poster.signed_now([entry.task for entry in entries])
        with Explained():
            answer = self.adapter.post_now(document_of(tasks))
        self._wrote(entries, losers_of(answer))
        written, self._written = self._written, []
        if written:
            self.adapter.wait(hooks.created(written))

    async def _join_parent(self, parent: Entry) -> None:
        if parent.created is None and parent.home.connection is not self.connection:
            raise InvalidTask(f"Its parent {parent.id} is not written yet: await it before you add the child.")


class _Collected(ImmediatePostbox):
    """What goes into one statement."""

    def add(self, *entries: Entry) -> None:
        self._entries.extend(entries)


class Poster:
    """Writes over the user's connection. Raises what its driver raises: the transaction is the user's."""

    def __init__(self, adapter: Adapter, backend: Backend) -> None:
        self.adapter = adapter
        self.backend = backend

    async def write(
        self,
        tasks: Sequence[NewTask],
        *,
        repeat: bool = False,  # noqa: ARG002  # the SQL passes over what is there anyway
    ) -> dict[UUID, UUID]:
        signed = await self.backend.signed(tasks) if self.backend.signs else tasks
        with Explained():
            return losers_of(await self.adapter.post(document_of(signed)))

    def draft(self, patience: float) -> None:
        """A transaction of the user's has no parts of its own."""

    async def was_written(self, id: UUID) -> bool:
        return await self.backend.was_written(id)

    async def note(self, id: UUID, message: str, exception: str) -> None:
        await self.backend.note(id, message, exception)

    async def expect(self, ids: Sequence[UUID]) -> None:
        await self.backend.expect(ids)

    def signed_now(self, tasks: Sequence[NewTask]) -> Sequence[NewTask]:
        """The tasks with their signatures, where those are wanted."""
        return self.adapter.wait(self.backend.signed(tasks)) if self.backend.signs else tasks


class Explained:
    """What the database says when it has no such function, in words that help."""

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        state = _sqlstate(error)
        if state in _NO_SCHEMA:
            raise SchemaOutdated(
                f"The database of this connection has no schema of Queued Tasks that fits this version ({error}): give "
                "a connection to the queue's database, or run `queued-tasks migrate`."
            ) from error
        if state == _NO_RIGHT:
            raise ConfigurationError(
                f"The database user of this connection lacks a right ({error}): see `queued-tasks migrate --roles`."
            ) from error


def _sqlstate(error: BaseException | None) -> object:
    for each in (error, getattr(error, "orig", None)):
        for name in ("sqlstate", "pgcode"):
            if state := getattr(each, name, None):
                return state
    return None


def document_of(tasks: Sequence[NewTask]) -> str:
    """The tasks as post_tasks takes them."""
    return msgspec.json.encode([_row(task) for task in tasks]).decode()


def _row(task: NewTask) -> dict[str, object]:
    row = {name: getattr(task, name) for name in NewTask.__struct_fields__}
    row["on_parent_failure"] = None if task.on_parent_failure == "cascade" else task.on_parent_failure
    row["parents"] = task.parents or None
    row["signature"] = None if task.signature is None else task.signature.hex()
    return {name: value for name, value in row.items() if value is not None}


def losers_of(answer: str | None) -> dict[UUID, UUID]:
    """What post_tasks answers: winners by losers."""
    return {} if answer is None else msgspec.json.decode(answer, type=dict[UUID, UUID])
