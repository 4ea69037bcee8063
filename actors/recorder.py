"""Store the contexts and log lines of running attempts.

What is left of them when an attempt ends is written by the settler, in the transaction that records the end.
"""

from __future__ import annotations

from loguru import logger

from ..runtime.actor import Actor
from ..runtime.errors import DatabaseUnavailable
from ..runtime.store.tasks import TaskStore
from ..runtime.task import ServerId
from .messages import RecorderMessage


class Recorder(Actor[RecorderMessage]):
    """What can't be written is dropped: the next context replaces the last one, lost lines are counted and said."""

    def __init__(self, store: TaskStore, server: ServerId) -> None:
        self._store = store
        self._server = server
        self._dropped = 0

    async def receive(self, message: RecorderMessage) -> None:
        try:
            await self._store.record(self._server, message.contexts, message.logs)
        except DatabaseUnavailable:
            self._dropped += len(message.logs)
            return
        if self._dropped:
            logger.warning("{} log lines of tasks were lost while PostgreSQL was away", self._dropped)
            self._dropped = 0
