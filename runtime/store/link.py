"""One connection that heals itself: opened when needed, dropped when in doubt, every call bounded in time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from types import TracebackType
from typing import Any, TypeAlias

import asyncpg

from ..errors import ConfigurationError, DatabaseUnavailable, QueuedTasksError, SchemaOutdated
from . import statements

Row: TypeAlias = "asyncpg.Record"

CALL_TIMEOUT = 20.0  # seconds; a statement that takes longer is given up with its connection
CONNECT_TIMEOUT = 5.0  # seconds


class LeaseLost(QueuedTasksError):
    """This server was given up by its peers: what it holds is no longer its own."""


class Locked(DatabaseUnavailable):
    """Another transaction held on to what this one needs. It was undone; what needs something else may go through."""


class TooLong(DatabaseUnavailable):
    """A call had not ended within its limit, on an open connection: PostgreSQL hangs, or it is too much at once."""


class NoRoom(DatabaseUnavailable):
    """A disk of PostgreSQL is full. It answers all the same: what needs less room may go through."""


_AWAY = (
    OSError,
    asyncio.TimeoutError,
    asyncpg.PostgresConnectionError,
    asyncpg.CannotConnectNowError,
    asyncpg.AdminShutdownError,
    asyncpg.CrashShutdownError,
    asyncpg.IdleInTransactionSessionTimeoutError,
    asyncpg.QueryCanceledError,
    asyncpg.TooManyConnectionsError,
    asyncpg.OutdatedSchemaCacheError,
    asyncpg.ReadOnlySQLTransactionError,
    asyncpg.DeadlockDetectedError,
    asyncpg.InvalidAuthorizationSpecificationError,
    asyncpg.InvalidCatalogNameError,
    asyncpg.OutOfMemoryError,
)
_OUTDATED = (
    asyncpg.UndefinedTableError,
    asyncpg.UndefinedFunctionError,
    asyncpg.UndefinedColumnError,
    asyncpg.InvalidSchemaNameError,
)


# What asyncpg says when it is used without a connection, and also when it is used wrongly.
_AWAY_IF_CLOSED = (asyncpg.InterfaceError, asyncpg.InternalClientError)


def translate(error: BaseException, connection: asyncpg.Connection | None) -> QueuedTasksError | None:
    """What an error of asyncpg means to the rest of the package; None when it is a bug, not a circumstance.

    `connection` is where it came up, None when there was none yet: some errors mean its loss only when it is closed.
    """
    if isinstance(error, asyncpg.PostgresError) and error.sqlstate == "QT001":
        return LeaseLost(str(error))
    if isinstance(error, asyncpg.PostgresError) and error.sqlstate == "QT002":
        return DatabaseUnavailable(f"PostgreSQL has lost what it knew ({error}).")
    if isinstance(error, _OUTDATED):
        return SchemaOutdated(
            f"The schema in the database does not fit this version ({error}): run `queued-tasks migrate`."
        )
    if isinstance(error, asyncpg.InsufficientPrivilegeError):
        return ConfigurationError(
            f"The database user lacks a right ({error}): grant it, or run `queued-tasks migrate` as the schema's owner."
        )
    if isinstance(error, asyncpg.ClientConfigurationError):
        return ConfigurationError(f"The database's URL can't be used ({error}).")
    if isinstance(error, asyncpg.LockNotAvailableError):
        return Locked(f"PostgreSQL did not answer in time: another transaction is in the way ({error}).")
    if isinstance(error, asyncpg.DiskFullError):
        return NoRoom(f"PostgreSQL has no room left ({error}): free some, or give it more.")
    closed = connection is None or connection.is_closed()
    if isinstance(error, asyncio.TimeoutError) and not closed:
        return TooLong("PostgreSQL did not answer in time (TimeoutError).")
    if isinstance(error, _AWAY) or (closed and isinstance(error, _AWAY_IF_CLOSED)):
        reason = str(error).strip() or type(error).__name__
        return DatabaseUnavailable(f"PostgreSQL can't be reached or did not answer in time ({reason}).")
    return None


_STATE_UNKNOWN = (asyncio.CancelledError, asyncpg.InternalClientError)  # of the connection, after these


class _Guard(AbstractAsyncContextManager[None]):
    """Raises what `failed` makes of an error; made once for all calls, because a generator for each is not cheap."""

    def __init__(self, failed: Callable[[BaseException], Exception | None]) -> None:
        self._failed = failed

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, frames: TracebackType | None
    ) -> None:
        if error is not None and (meaning := self._failed(error)) is not None:
            raise meaning from error


class Link:
    """A connection to PostgreSQL for one call at a time.

    A call that fails in the connection, or takes longer than its timeout, closes the connection; the next one opens a
    new one. Whether a broken call was carried out is unknown: whoever repeats it needs a statement that allows it.

    Raises:
        DatabaseUnavailable, SchemaOutdated, ConfigurationError, LeaseLost: from every call.
    """

    def __init__(self, dsn: str, schema: str, *, name: str, statement_cache: int = 1024) -> None:
        self.schema = schema
        self._dsn = dsn
        self._name = name
        self._statement_cache = statement_cache
        self._statements = statements.load(schema)
        self._connection: asyncpg.Connection | None = None
        self._session = 0
        self._turn = asyncio.Lock()
        self._guard = _Guard(self._failed)

    async def session(self) -> int:
        """The number of the open connection; one is opened if need be.

        After a crash or a failover of PostgreSQL the next session may know less than the last one did. A call that is
        given a number is carried out in that session, or raises DatabaseUnavailable.
        """
        async with self._turn, self._guard:
            await self._connected()
            return self._session

    @property
    def open_session(self) -> int | None:
        """The number of the connection if it is open."""
        return None if self._connection is None or self._connection.is_closed() else self._session

    async def fetch(
        self, statement: str, *args: object, timeout: float = CALL_TIMEOUT, session: int | None = None
    ) -> list[Row]:
        """Run the statement of that name; all rows."""
        async with self._turn:
            return await self._run(statement, args, timeout, session)

    async def fetch_one(self, statement: str, *args: object, timeout: float = CALL_TIMEOUT) -> Row | None:
        """The first row of a statement, if any."""
        rows = await self.fetch(statement, *args, timeout=timeout)
        return rows[0] if rows else None

    async def fetch_value(self, statement: str, *args: object, timeout: float = CALL_TIMEOUT) -> Any:
        """The first column of the first row, None without one."""
        row = await self.fetch_one(statement, *args, timeout=timeout)
        return None if row is None else row[0]

    @asynccontextmanager
    async def transaction(
        self, timeout: float = CALL_TIMEOUT, *, session: int | None = None
    ) -> AsyncIterator[Callable[..., Awaitable[list[Row]]]]:
        """A transaction; inside, the call that it gives runs a statement by name. Nobody else's gets in between."""
        async with self._turn, self._guard, asyncio.timeout(timeout):
            connection = await self._connected(session)

            async def run(statement: str, *args: object) -> list[Row]:
                return await connection.fetch(self._statements[statement], *args)  # type: ignore[no-any-return]

            await connection.execute(self._statements["begin"])
            try:
                yield run
            except Exception:
                await connection.execute("rollback")
                raise
            await connection.execute("commit")

    async def close(self) -> None:
        """Close the connection; a later call opens it again."""
        connection, self._connection = self._connection, None
        if connection is not None and not connection.is_closed():
            try:
                await connection.close(timeout=2)
            except (*_AWAY, *_AWAY_IF_CLOSED):
                connection.terminate()

    async def _run(self, statement: str, args: Sequence[object], timeout: float, session: int | None) -> list[Row]:
        async with self._guard:
            connection = await self._connected(session)
            return await connection.fetch(self._statements[statement], *args, timeout=timeout)  # type: ignore[no-any-return]

    async def _connected(self, session: int | None = None) -> asyncpg.Connection:
        opened = self.open_session
        if session is not None and session != opened:
            raise DatabaseUnavailable("The connection to PostgreSQL was lost; it is opened again.")
        if opened is None:
            self._connection = await asyncpg.connect(
                self._dsn,
                timeout=CONNECT_TIMEOUT,
                statement_cache_size=self._statement_cache,
                server_settings={"application_name": f"queued-tasks {self._name}"},
            )
            self._session += 1
        return self._connection

    def _failed(self, error: BaseException) -> Exception | None:
        """What the error of a call means, if anything; the connection is dropped if that is to blame, or in doubt."""
        meaning = translate(error, self._connection)
        away = isinstance(meaning, DatabaseUnavailable) and not isinstance(meaning, (Locked, NoRoom))
        if away or isinstance(error, _STATE_UNKNOWN):
            self._drop()
        return meaning

    def _drop(self) -> None:
        # close() would wait for an answer that may never come
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.terminate()
