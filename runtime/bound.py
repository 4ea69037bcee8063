"""The event loop that a handle was opened on: its connections, and those who wait for them, belong to that one."""

from __future__ import annotations

import asyncio

from .errors import InvalidState


class Bound:
    """Remembers the event loop that runs here."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()

    def check(self) -> None:
        """Raise InvalidState on any other one, where what is awaited might never come."""
        if asyncio.get_running_loop() is not self._loop:
            raise InvalidState(
                "This handle belongs to the event loop that it was opened on: use a handle of its own here, by "
                "`QueuedTasks.connect()`, or one that serves all threads, `QueuedTasks.sync()`; add_task without await "
                "works anywhere."
            )
