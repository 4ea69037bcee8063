"""The user's own connections, told apart by their types: of asyncpg, psycopg and SQLAlchemy.

psycopg and SQLAlchemy need not be installed: what imports them runs for a connection of their kind alone.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, TypeVar

from .backend import Backend
from .blocking import runs_loop
from .errors import InvalidState, InvalidTask
from .outbox import Outbox
from .posting import ImmediatePostbox, Postbox
from .store.statements import load

T = TypeVar("T")

_SQLALCHEMY = ("AsyncSession", "AsyncConnection", "Session", "Connection", "async_scoped_session", "scoped_session")


def post_over(
    connection: object, schema: str, outbox: Outbox, backend: Backend, wait: Callable[..., Any] | None = None
) -> Outbox:
    """The outbox for what is added on `connection`, told apart by its type. `wait`: see Adapter, where it is known.

    Raises:
        InvalidTask: it is of no known kind.
    """
    statement = load(schema)["post_tasks"].splitlines()[-1]
    kinds = {f"{base.__module__.partition('.')[0]}.{base.__qualname__}" for base in type(connection).__mro__}
    if kinds & {"asyncpg.Connection", "asyncpg.PoolConnectionProxy"}:
        return Postbox(AsyncpgAdapter(connection, statement), backend, outbox.derive)
    if "psycopg.AsyncConnection" in kinds:
        return Postbox(AsyncPsycopgAdapter(connection, statement), backend, outbox.derive)
    if "psycopg.Connection" in kinds:
        return ImmediatePostbox(PsycopgAdapter(connection, statement, wait or wait_here), backend, outbox.derive)
    if kinds & {f"sqlalchemy.{name}" for name in _SQLALCHEMY}:
        from .sqlalchemy import postbox

        return postbox(connection, statement, outbox, backend, wait or wait_here)
    raise InvalidTask(
        f"tasks can't be added on {connection!r:.60}: give a connection of asyncpg or psycopg, or a session or "
        "connection of SQLAlchemy; not a pool, an engine or a cursor."
    )


def wait_here(work: Coroutine[Any, Any, T]) -> T:
    """The result of `work` on a thread of the user's; where an event loop runs there, only if it needs no waiting."""
    if not runs_loop():
        return asyncio.run(work)
    try:
        work.send(None)
    except StopIteration as end:
        result: T = end.value
        return result
    work.close()
    raise InvalidState(
        "A connection that blocks can't wait for an async hook while an event loop runs: use an async connection."
    )


class AsyncpgAdapter:
    """A connection of asyncpg."""

    def __init__(self, connection: Any, statement: str, wait: Callable[..., Any] = wait_here) -> None:
        self.connection = connection
        self._statement = statement
        self.wait = wait

    async def post(self, tasks: str) -> str | None:
        answer: str | None = await self.connection.fetchval(self._statement, tasks)
        return answer

    def post_now(self, tasks: str) -> str | None:  # noqa: ARG002  # others can
        raise InvalidState("This connection is async: await what is added on it.")


class AsyncPsycopgAdapter(AsyncpgAdapter):
    """An AsyncConnection of psycopg."""

    async def post(self, tasks: str) -> str | None:
        async with self.connection.cursor(row_factory=_first_row()) as cursor:
            await cursor.execute(self._statement.replace("$1", "%s"), [tasks])
            return _only(await cursor.fetchone())


class PsycopgAdapter(AsyncpgAdapter):
    """A Connection of psycopg, which blocks."""

    async def post(self, tasks: str) -> str | None:
        return self.post_now(tasks)

    def post_now(self, tasks: str) -> str | None:
        with self.connection.cursor(row_factory=_first_row()) as cursor:
            cursor.execute(self._statement.replace("$1", "%s"), [tasks])
            return _only(cursor.fetchone())


def _first_row() -> Any:
    """psycopg's plain rows, whatever the connection makes of rows otherwise."""
    from psycopg.rows import tuple_row

    return tuple_row


def _only(row: Sequence[str | None] | None) -> str | None:
    return None if row is None else row[0]
