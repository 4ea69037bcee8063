"""Notifications: one listening connection, which also holds the session lock that says that this process lives."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable

import asyncpg

from .link import CONNECT_TIMEOUT, translate
from .statements import load


class Topics:
    """LISTEN on some topics. The callbacks run on the event loop, in the order of arrival."""

    def __init__(
        self,
        dsn: str,
        schema: str,
        *,
        name: str,
        on_notified: Callable[[str, str], None],
        on_lost: Callable[[], None],
    ) -> None:
        self._dsn = dsn
        self._name = name
        self._statements = load(schema)
        self._on_notified = on_notified
        self._on_lost = on_lost
        self._connection: asyncpg.Connection | None = None

    async def open(self, topics: Iterable[str], *, lock_key: int | None = None) -> bool:
        """Connect, take the lock, listen. An open one is left first.

        Returns whether the lock is held. Behind a pooler it is not: it would stay with one of the pooler's sessions.

        Raises:
            DatabaseUnavailable: it can't be reached.
        """
        self.close()
        held = False
        try:
            connection = await asyncpg.connect(
                self._dsn,
                timeout=CONNECT_TIMEOUT,
                statement_cache_size=0,  # behind a pooler a prepared statement may be somebody else's
                server_settings={"application_name": f"queued-tasks {self._name}"},
            )
            self._connection = connection
            connection.add_termination_listener(self._lost)
            async with asyncio.timeout(CONNECT_TIMEOUT):
                if lock_key is not None:
                    told = connection.get_server_pid()
                    held = await connection.fetchval(self._statements["hold_lock"], lock_key, told)
                for topic in topics:
                    await connection.add_listener(topic, self._notified)
        except Exception as error:
            meaning = translate(error, self._connection)
            self.close()
            if meaning is None:
                raise
            raise meaning from error
        return held

    async def probe(self) -> None:
        """Ask for an answer: a half-open connection looks alive until somebody does.

        Raises:
            DatabaseUnavailable: no answer in time; the connection is closed.
        """
        connection = self._connection
        try:
            if connection is None or connection.is_closed():
                raise OSError("the listening connection is closed")
            await connection.fetchval(self._statements["probe"], timeout=CONNECT_TIMEOUT)
        except Exception as error:
            meaning = translate(error, self._connection)
            self.close()
            if meaning is None:
                raise
            raise meaning from error

    def close(self) -> None:
        """Stop listening; the lock is free."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.remove_termination_listener(self._lost)
            connection.terminate()

    def _notified(self, _connection: object, _pid: int, topic: str, payload: str) -> None:
        self._on_notified(topic, payload)

    def _lost(self, _connection: object) -> None:
        self._connection = None
        self._on_lost()
