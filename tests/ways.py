"""The drivers with which people open transactions, alike to tests: execute, commit, roll back, savepoints."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import asyncpg
import psycopg
from sqlalchemy import create_engine, text
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.orm import Session

from queued_tasks.runtime.handles import QueuedTasks
from queued_tasks.runtime.refs import TaskRef

AWAITED = ("asyncpg", "asyncpg pool", "psycopg", "sqlalchemy+asyncpg", "sqlalchemy+psycopg")
SESSIONS = ("session+asyncpg", "session+psycopg", "blocking session")
BLOCKING = ("blocking psycopg", "blocking sqlalchemy")
ALL = (*AWAITED, *SESSIONS, *BLOCKING)


class Way:
    """A transaction that is open, on `subject`: what is given to `tasks.on()`."""

    def __init__(self, kind: str, subject: Any, **verbs: Callable[..., Any]) -> None:
        self.kind = kind
        self.subject = subject
        self._verbs = verbs

    async def add(self, tasks: QueuedTasks, function: Callable[..., object], *args: object, **options: Any) -> TaskRef:
        """Add a task as is proper here: awaited where that is needed."""
        ref = tasks.on(self.subject).add_task(function, *args, **options)
        if self.kind in AWAITED:
            await ref
        return ref

    async def execute(self, statement: str) -> None:
        await _done(self._verbs["execute"](statement))

    async def commit(self) -> None:
        await _done(self._verbs["commit"]())

    async def rollback(self) -> None:
        await _done(self._verbs["rollback"]())

    @asynccontextmanager
    async def savepoint(self) -> AsyncIterator[None]:
        """A savepoint that is released at the end of the block, or rolled back when it raises Undo."""
        nested = self._verbs["nested"]()
        if hasattr(nested, "__aenter__"):
            async with nested:
                yield
        else:
            with nested:
                yield


class Undo(Exception):
    """Rolls a savepoint back."""


async def _done(answer: object) -> None:
    if isinstance(answer, Awaitable):
        await answer


@asynccontextmanager
async def way(kind: str, dsn: str) -> AsyncIterator[Way]:
    """A transaction opened the way that `kind` names; rolled back at the end of the block, unless it was committed."""
    url = dsn.replace("postgresql://", "postgresql+psycopg://", 1)
    match kind:
        case "asyncpg" | "asyncpg pool":
            pool = await asyncpg.create_pool(dsn, min_size=1, max_size=1) if kind == "asyncpg pool" else None
            connection = await (pool.acquire() if pool else asyncpg.connect(dsn))
            transaction = connection.transaction()
            await transaction.start()
            yield Way(
                kind,
                connection,
                execute=connection.execute,
                commit=transaction.commit,
                rollback=transaction.rollback,
                nested=connection.transaction,
            )
            await (pool.release(connection) if pool else connection.close())
            if pool:
                await pool.close()
        case "psycopg":
            async with await psycopg.AsyncConnection.connect(dsn) as own:
                yield _plain(kind, own)
                await own.rollback()
        case "blocking psycopg":
            with psycopg.connect(dsn) as plain:
                yield _plain(kind, plain)
                plain.rollback()
        case "sqlalchemy+asyncpg" | "sqlalchemy+psycopg" | "session+asyncpg" | "session+psycopg":
            driver = kind.partition("+")[2]
            engine = create_async_engine(dsn.replace("postgresql://", f"postgresql+{driver}://", 1))
            async with AsyncSession(engine) if kind.startswith("session") else engine.connect() as subject:
                yield _alchemy(kind, subject)
            await engine.dispose()
        case "blocking session" | "blocking sqlalchemy":
            blocking = create_engine(url)
            with Session(blocking) if kind == "blocking session" else blocking.connect() as given:
                yield _alchemy(kind, given)
            blocking.dispose()
        case _:
            raise AssertionError(kind)


def _plain(kind: str, connection: Any) -> Way:
    return Way(
        kind,
        connection,
        execute=connection.execute,
        commit=connection.commit,
        rollback=connection.rollback,
        nested=connection.transaction,
    )


def _alchemy(kind: str, subject: Any) -> Way:
    return Way(
        kind,
        subject,
        execute=lambda statement: subject.execute(text(statement)),
        commit=subject.commit,
        rollback=subject.rollback,
        nested=subject.begin_nested,
    )
