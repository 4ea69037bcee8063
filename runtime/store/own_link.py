"""The connection of a handle: unlike any other it is closed for good."""

from __future__ import annotations

import asyncpg

from ..errors import DatabaseUnavailable, InvalidState
from .link import Link

CLOSED = "This handle is closed: wait for tasks and ask about them before you leave it, or open another one."


class OwnLink(Link):
    """A Link that nobody opens again: once it is closed each call raises InvalidState, those under way included."""

    _left = False

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
