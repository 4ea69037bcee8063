"""Tasks in the transactions of SQLAlchemy: of sessions and connections, async and sync ones."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Any
from weakref import WeakKeyDictionary

from sqlalchemy import Connection, event, text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession, async_scoped_session
from sqlalchemy.orm import Session, SessionTransaction, scoped_session
from sqlalchemy.util import await_only, greenlet_spawn

from .backend import Backend
from .entry import Entry
from .errors import InvalidState
from .outbox import Derive, Outbox
from .posting import ImmediatePostbox, Postbox

Wait = Callable[..., Any]

_KEY = "queued_tasks"


def postbox(connection: object, statement: str, outbox: Outbox, backend: Backend, wait: Wait) -> Outbox:
    """The outbox for what is added on a session or connection, in the name of `outbox`."""
    if isinstance(connection, scoped_session | async_scoped_session):
        connection = connection()
    match connection:
        case AsyncSession():
            return _of_session(connection.sync_session, statement, outbox, backend, await_only)
        case Session():
            return _of_session(connection, statement, outbox, backend, wait)
        case AsyncConnection():
            return Postbox(_AsyncAdapter(connection, statement), backend, outbox.derive)
        case Connection():
            return ImmediatePostbox(_Adapter(connection, statement, wait), backend, outbox.derive)
        case _:
            raise TypeError(f"no session or connection of SQLAlchemy: {connection!r}")


class SessionPostbox(ImmediatePostbox):
    """Tasks for a session: an await writes them, else the commit does. They share the fate of savepoints, too."""

    def __init__(self, adapter: _Adapter, backend: Backend, derive: Derive | None) -> None:
        super().__init__(adapter, backend, derive)
        self._session: Session = adapter.connection
        self._added: dict[Entry, SessionTransaction] = {}
        self._sent: dict[Entry, SessionTransaction] = {}
        event.listen(self._session, "before_commit", self._before_commit)
        event.listen(self._session, "after_commit", self._after_commit)
        event.listen(self._session, "after_transaction_end", self._after_end)

    @property
    def forgotten(self) -> Entry | None:
        return None

    def add(self, *entries: Entry) -> None:
        if not self._session.in_transaction():
            self._session.begin()  # as adding an object does: what is rolled back from here on takes the task along
        self._added.update(dict.fromkeys(entries, self._innermost()))
        self._entries.extend(entries)

    async def put(self, wanted: Entry | None = None) -> None:  # noqa: ARG002  # nobody else writes here
        entries = self._take(len(self._entries))
        if not entries:
            return
        try:
            await self._post(entries)
        except BaseException:
            self._entries[:0] = entries
            raise

    async def settle(self, entry: Entry) -> None:
        if entry.created is None and entry not in self._added:
            raise InvalidState(f"Task {entry.id} was not written: its transaction was rolled back. Add it again.")
        await super().settle(entry)

    def batch(self) -> Outbox:
        return self

    def discard(self, reason: str) -> None:
        # what was added is the session's, which may be committed after the route has ended
        self.close(reason)

    async def _post(self, entries: list[Entry]) -> None:
        if self.adapter.wait is await_only:
            await greenlet_spawn(self._write_now, entries)
        else:
            self._write_now(entries)

    def _write_now(self, entries: list[Entry]) -> None:
        self.post_now(entries)
        innermost = self._innermost()
        self._sent.update((entry, innermost) for entry in entries)

    def _innermost(self) -> SessionTransaction:
        transaction = self._session.get_nested_transaction() or self._session.get_transaction()
        assert transaction is not None
        return transaction

    def _before_commit(self, _: Session) -> None:
        if entries := self._take(len(self._entries)):
            self._write_now(entries)

    def _after_commit(self, _: Session) -> None:
        done = self._innermost()
        for scope in (self._added, self._sent):
            for entry in [entry for entry, transaction in scope.items() if transaction is done]:
                if done.nested and done.parent is not None:
                    scope[entry] = _boundary(done.parent)
                else:
                    del scope[entry]

    def _after_end(self, _: Session, transaction: SessionTransaction) -> None:
        """What is still of a transaction that has ended was not committed with it."""
        for entry in [entry for entry, sent in self._sent.items() if sent is transaction]:
            del self._sent[entry]
            entry.created = None
            self._entries.append(entry)
        for entry in [entry for entry, added in self._added.items() if added is transaction]:
            del self._added[entry]
            with suppress(ValueError):
                self._entries.remove(entry)


class _Adapter:
    """A session or connection that blocks."""

    def __init__(self, connection: Any, statement: str, wait: Wait) -> None:
        self.connection = connection
        self.wait = wait
        self._statement = text(statement.replace("$1", ":tasks"))

    async def post(self, tasks: str) -> str | None:
        return self.post_now(tasks)

    def post_now(self, tasks: str) -> str | None:
        answer: str | None = self.connection.execute(self._statement, {"tasks": tasks}).scalar()
        return answer


class _AsyncAdapter(_Adapter):
    def __init__(self, connection: AsyncConnection, statement: str) -> None:
        super().__init__(connection, statement, await_only)

    async def post(self, tasks: str) -> str | None:
        answer: str | None = (await self.connection.execute(self._statement, {"tasks": tasks})).scalar()
        return answer


def _of_session(session: Session, statement: str, outbox: Outbox, backend: Backend, wait: Wait) -> SessionPostbox:
    """The one box of this session for this handle, so that what is added to it stays in order."""
    boxes: WeakKeyDictionary[Outbox, SessionPostbox] = session.info.setdefault(_KEY, WeakKeyDictionary())
    if outbox not in boxes:
        boxes[outbox] = SessionPostbox(_Adapter(session, statement, wait), backend, outbox.derive)
    return boxes[outbox]


def _boundary(transaction: SessionTransaction) -> SessionTransaction:
    """The savepoint or transaction that `transaction`, which may be a flush's own, is part of."""
    while not transaction.nested and transaction.parent is not None:
        transaction = transaction.parent
    return transaction
