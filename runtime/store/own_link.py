"""The connection of a handle: unlike any other it is closed for good, and says so on a foreign event loop."""

from __future__ import annotations

from collections.abc import Coroutine
from typing import Any

import asyncpg

from ..bound import Bound
from ..errors import DatabaseUnavailable, InvalidState
from .link import CALL_TIMEOUT, Link, Row

CLOSED = "This handle is closed: wait for tasks and ask about them before you leave it, or open another one."


class OwnLink(Link):
    """A Link that nobody opens again: once it is closed each call raises InvalidState, those under way included.

    So does a call on another event loop than the one that it was made on.
    """

    def __init__(self, dsn: str, schema: str, *, name: str, statement_cache: int = 1024) -> None:
        super().__init__(dsn, schema, name=name, statement_cache=statement_cache)
        self._bound = Bound()
        self._left = False

    def fetch(
        self, statement: str, *args: object, timeout: float = CALL_TIMEOUT, session: int | None = None
    ) -> Coroutine[Any, Any, list[Row]]:
        self._bound.check()
        return super().fetch(statement, *args, timeout=timeout, session=session)

    async def close(self) -> None:
        self._left = True
        await super().close()

    async def _connected(self, session: int | None = None) -> asyncpg.Connection:
        self._check_left()  # also whoever waited for his turn meanwhile
        connection = await super()._connected(session)
        if self._left:  # while it was opened
            self._drop()
        self._check_left()
        return connection

    def _failed(self, error: BaseException) -> Exception | None:
        meaning = super()._failed(error)
        return InvalidState(CLOSED) if self._left and isinstance(meaning, DatabaseUnavailable) else meaning

    def _check_left(self) -> None:
        if self._left:
            raise InvalidState(CLOSED)
