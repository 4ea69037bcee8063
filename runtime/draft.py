"""A large batch on its way to PostgreSQL while the rest of it is still being made, in one transaction for all parts."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from .store.tasks import TaskStore
from .task import NewTask


class OpenDraft:
    """See `Draft`. `on_written` is told what was written, after the commit.

    PostgreSQL works on the last part that was sent while its caller makes the next one; those before it have arrived.
    Whatever goes wrong here undoes all of it, and is nobody's error: who has the whole batch by then writes it again.
    """

    def __init__(self, store: TaskStore, patience: float, on_written: Callable[[Sequence[NewTask]], None]) -> None:
        self._store = store
        self._patience = patience
        self._on_written = on_written
        self._parts: asyncio.Queue[Sequence[NewTask]] = asyncio.Queue()
        self._taken = asyncio.Event()
        self._writing = asyncio.get_running_loop().create_task(self._write())
        self._writing.add_done_callback(lambda _: self._taken.set())  # nobody is to wait for a draft that has ended

    @property
    def is_over(self) -> bool:
        """Whether it was written, or undone."""
        return self._writing.done()

    async def send(self, tasks: Sequence[NewTask]) -> None:
        """See `Draft`."""
        if self.is_over:
            return
        self._taken.clear()
        self._parts.put_nowait(tasks)
        await self._taken.wait()  # it returns a turn of the loop later, by which the bytes have left

    async def finish(self) -> bool:
        """See `Draft`."""
        self._parts.put_nowait(())
        await asyncio.wait([self._writing])
        return not self._writing.cancelled() and self._writing.result()

    def drop(self) -> None:
        """See `Draft`."""
        self._writing.cancel()

    async def _write(self) -> bool:
        written: list[NewTask] = []
        try:
            tasks = await self._parts.get()
            async with self._store.adding(tasks, self._patience) as add:
                while tasks:
                    self._taken.set()
                    await add(tasks)
                    written += tasks
                    tasks = await self._parts.get()
        except Exception:  # the same comes up when the whole is written, or it was of no account
            return False
        self._on_written(written)
        return True
