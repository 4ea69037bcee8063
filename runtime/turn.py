"""Write what a handle has collected at the end of the event loop's turn."""

from __future__ import annotations

import asyncio

from loguru import logger

from . import hooks
from .errors import QueuedTasksError
from .outbox import Outbox

_LONGEST_PAUSE = 5.0  # seconds between two tries in the background


class TurnFlush:
    """Writes an outbox at the end of the event loop's turn, and goes on until it is empty.

    It doesn't wait for post-create hooks: the next tasks are written meanwhile.
    """

    def __init__(self, outbox: Outbox) -> None:
        self._outbox = outbox
        self._loop = asyncio.get_running_loop()
        self._called = False
        self._running: asyncio.Task[None] | None = None
        self._telling: set[asyncio.Task[None]] = set()
        outbox.on_added = self._call

    async def close(self, reason: str) -> None:
        """Write what is left and refuse what comes later; raises what `Outbox.flush` does.

        Post-create hooks that run have as long to end as one of them may take.
        """
        self._outbox.close(reason)
        if self._running is not None:
            self._running.cancel()
            await asyncio.wait([self._running])
        await self._outbox.flush()
        if self._telling:
            _, late = await asyncio.wait(self._telling, timeout=hooks.LONGEST)
            for telling in late:
                telling.cancel()

    def _call(self) -> None:
        if not self._called:
            self._called = True
            # threadsafe for both: the turn of a loop that sleeps ends only when it is woken
            self._loop.call_soon_threadsafe(self._start)

    def _start(self) -> None:
        self._called = False
        if self._running is None or self._running.done():
            self._running = self._loop.create_task(self._run())

    async def _run(self) -> None:
        pause = 0.1
        while len(self._outbox):
            try:
                await self._outbox.put()
            except QueuedTasksError as error:
                logger.error("{} tasks are kept and tried again in {:g} s. {}", len(self._outbox), pause, error)
                await asyncio.sleep(pause)
                pause = min(pause * 2, _LONGEST_PAUSE)
            if self._outbox.untold:
                telling = self._loop.create_task(self._outbox.tell())
                self._telling.add(telling)
                telling.add_done_callback(self._telling.discard)
