"""Where whoever waits for tasks hears of their ends: one topic, on a connection of its own or on a server's."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from typing import Protocol

from .errors import DatabaseUnavailable
from .store.topics import Topics


class Ear(Protocol):
    """Hears what is said on `topic` between `open` and `close`.

    `on_told` gets each payload; `on_lost` is called when nothing can be heard any more. Both are set before `open`.
    """

    topic: str
    on_told: Callable[[str], None]
    on_lost: Callable[[], None]

    async def open(self) -> None:
        """Begin to listen. Raises DatabaseUnavailable."""

    async def probe(self) -> None:
        """Find out whether anything would be heard. Raises DatabaseUnavailable."""

    def close(self) -> None:
        """Listen no more."""


class OwnEar:
    """A connection that listens on a topic that nobody else knows."""

    on_told: Callable[[str], None]
    on_lost: Callable[[], None]

    def __init__(self, dsn: str, schema: str) -> None:
        self.topic = f"queued_tasks_{secrets.token_hex(8)}"
        self._topics = Topics(
            dsn,
            schema,
            name="waiter",
            on_notified=lambda _topic, payload: self.on_told(payload),
            on_lost=lambda: self.on_lost(),
        )

    async def open(self) -> None:
        await self._topics.open([self.topic])

    async def probe(self) -> None:
        await self._topics.probe()

    def close(self) -> None:
        self._topics.close()


class SharedEar:
    """The topic of a server, on the connection that it listens on anyway; `listening` while that is open."""

    on_told: Callable[[str], None]
    on_lost: Callable[[], None]

    def __init__(self, topic: str) -> None:
        self.topic = topic
        self._listening = False
        self._open = False

    def listens(self, listening: bool) -> None:
        """The server's connection was opened or lost."""
        lost, self._listening = self._listening and not listening, listening
        if lost and self._open:
            self.on_lost()

    def hear(self, payload: str) -> None:
        """Something was said on the topic."""
        if self._open:
            self.on_told(payload)

    async def open(self) -> None:
        await self.probe()
        self._open = True

    async def probe(self) -> None:
        if not self._listening:
            raise DatabaseUnavailable("This server does not listen at the moment: it is connecting again.")

    def close(self) -> None:
        self._open = False
