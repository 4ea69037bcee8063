"""What a handle has collected and not written yet: when it goes out, what a failed write leaves behind.

Knows no database: a `Writer` is what writes, the process' own or the one that a worker has.
"""

from __future__ import annotations

import asyncio
import weakref
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from threading import Lock
from typing import TypeAlias
from uuid import UUID

from loguru import logger
from msgspec.structs import replace

from . import hooks
from .entry import Entry, not_awaited
from .errors import DatabaseUnavailable, InvalidState, InvalidTask, QueuedTasksError
from .hooks import HookTask, on_post_create, on_pre_create
from .relay import Relay
from .task import NewTask
from .traces import formatted
from .writing import Draft, Writer, without_own

PATIENCE = 20.0  # seconds that an await goes on trying while the database is away
LIMIT = 100_000  # tasks that one outbox keeps

Derive: TypeAlias = Callable[[NewTask], UUID]

_CHUNK = 2_000  # tasks a write, where they don't belong together


class Outbox:
    """Tasks in the order in which they were added; parents come before their children.

    `together`: one bad task keeps all of them from being written, as it befits a request; otherwise only its own
    children. `patience` in seconds: see `flush`. `on_added` is called after each `add`, by whatever thread that is in.
    `derive` makes a task's id of what the task is; whatever goes by it may have been written, and be gone, already.
    """

    def __init__(
        self,
        writer: Writer,
        *,
        together: bool,
        patience: float = PATIENCE,
        derive: Derive | None = None,
    ) -> None:
        self.derive = derive
        self.connection: object | None = None  # of the user's, which these tasks go over
        self._attached: list[Outbox] = []
        self.on_added: Callable[[], None] | None = None
        self._writer = writer
        self._together = together
        self.patience = patience
        self._entries: list[Entry] = []
        self._batch: list[Entry] = []
        self._failed: deque[Entry] = deque(maxlen=1_000)
        self._written: list[HookTask] = []
        self._draft: Draft | None = None
        self._deadline: float | None = None  # of the draft, and of what follows on it
        self._relay = Relay()
        self.turn = Lock()  # held by threads without an event loop while they write: the relay is one loop's at a time
        self._closed: str | None = None

    @property
    def entries(self) -> Sequence[Entry]:
        """What waits, in its order; not what is being written."""
        return tuple(self._entries)

    @property
    def forgotten(self) -> Entry | None:
        """The first task that nobody has awaited, where only that writes it."""
        return next((entry for entry in self._entries if entry.error is None), None)

    def __len__(self) -> int:
        return len(self._entries) + len(self._batch)

    def batch(self) -> Outbox:
        """An outbox for what goes out in one statement, to the same place."""
        return Outbox(self._writer, together=True, patience=self.patience, derive=self.derive)

    def attach(self, box: Outbox) -> None:
        """Watch over an outbox whose tasks must be awaited, where all tasks are written at one moment."""
        if self._together:
            self._keep(box)
            known = weakref.ref(
                box
            )  # not itself, which would never be collected: that is when it says what was forgotten
            box.on_added = lambda: self._keep(known())

    def holds(self, id: UUID) -> bool:
        """Whether this task is still to be written."""
        return any(entry.id == id for entry in (*self._batch, *self._entries))

    def check_open(self) -> None:
        """Raise InvalidState once the outbox is closed; the text says what to use instead."""
        if self._closed is not None:
            raise InvalidState(self._closed)

    def check_room(self) -> None:
        """Make sure that a task can be added.

        Raises:
            InvalidState: the outbox is closed.
            DatabaseUnavailable: too many tasks wait to be written.
        """
        self.check_open()
        if len(self) >= LIMIT:
            raise DatabaseUnavailable(
                f"{LIMIT} tasks wait to be written: PostgreSQL is away or too slow, or nothing was awaited meanwhile; "
                "await flush() now and then, or use add_tasks()."
            )

    def add(self, *entries: Entry) -> None:
        """Keep tasks until the next flush; from any thread."""
        self._entries.extend(entries)
        if self.on_added is not None:
            self.on_added()

    async def send(self, entries: Sequence[Entry]) -> None:
        """Let the database work on the part of a batch that was just added, if it can; the next flush commits them."""
        if self._deadline is None and not on_pre_create:  # an async hook has its say when all are there
            self._deadline = asyncio.get_running_loop().time() + self.patience
            self._draft = self._writer.draft(self.patience)
        if self._draft is not None:
            await self._draft.send([entry.task for entry in entries])

    def drop(self) -> None:
        """Undo the parts that are not committed."""
        if self._draft is not None:
            self._draft.drop()

    async def flush(self) -> None:
        """Write what was added; durable when it returns.

        Raises:
            DatabaseUnavailable: not within the patience; the tasks are kept, and the next call tries again.
            InvalidState: a task that was added on a connection was not awaited.
            Exception: what kept tasks from being written since the last call, or an async pre-create hook raised.
        """
        self._check_attached()
        await self.write()
        failed = [*self._failed]
        self._failed.clear()
        if failed and failed[0].error is not None:
            raise failed[0].error

    async def write(self) -> None:
        """Write what was added, as `flush` does, but leave it to the next await to raise what was refused.

        Returns when the post-create hooks have been called.
        """
        await self.put()
        await self.tell()

    async def put(self, wanted: Entry | None = None) -> None:
        """As `write`, without the hooks: see `tell`.

        `wanted`: take no turn once somebody else's has decided this one. Whoever took one then would write the few
        tasks that came meanwhile, and those behind it would find as few.
        """
        if not len(self):
            return
        if self._relay.holder is not None and self._relay.holder is asyncio.current_task():
            raise InvalidState("A hook can't await tasks of the handle that calls it: add them without await.")
        deadline = self._deadline or asyncio.get_running_loop().time() + self.patience
        try:
            if not await self._relay.take(_never if wanted is None else wanted.is_decided, deadline):
                return
        except TimeoutError:
            raise self._gave_up() from None
        try:
            async with asyncio.timeout_at(deadline) as limit:
                if not self._together:
                    await asyncio.sleep(0)  # who adds in the same turn of the loop comes along
                remaining = len(self._entries)
                while remaining > 0:
                    batch = self._take(remaining)
                    remaining -= len(batch)
                    await self._write(batch)
        except TimeoutError:
            if not limit.expired():
                raise
            raise self._gave_up() from None
        finally:
            self._relay.pass_on()

    @property
    def untold(self) -> bool:
        """Whether post-create hooks are still to be called."""
        return bool(self._written)

    async def tell(self) -> None:
        """Call the post-create hooks for what was written."""
        written, self._written = self._written, []
        for task, trace in await hooks.created(written):
            with suppress(QueuedTasksError):
                await self._writer.note(task.id, hooks.POST_CREATE_FAILED, trace)

    async def settle(self, entry: Entry) -> None:
        """Write what was added up to this task, which is durable when it returns; raises what `flush` does for it."""
        if entry.created is not None:
            return
        if entry.error is not None:
            entry.error = None
            self._forget(entry)
            self._entries.append(entry)
        await self.put(entry)
        if self.untold:
            await self.tell()
        if entry.error is not None:
            self._forget(entry)
            raise entry.error
        if entry.created is None:
            raise InvalidState(f"Task {entry.id} was not written here. {self._closed}")

    def close(self, reason: str) -> None:
        """Refuse what is added from now on, for this reason."""
        self._closed = reason
        self._attached = []  # they know this one: it would stay, with the connections, until the garbage is collected

    def discard(self, reason: str) -> None:
        """Drop what has not been written, and close."""
        self._entries.clear()
        for box in self._attached:
            box.discard(reason)
        self.close(reason)

    async def hand_over(self, reason: str) -> list[NewTask]:
        """Close, and return what has not been written: somebody else writes it along with other things.

        Raises what an async pre-create hook raises.
        """
        self._check_attached()
        await self._relay.take(_never)
        try:
            entries, self._entries = self._entries, []
            self.close(reason)
            sound = await self._prepared(entries)
            if on_post_create:
                await hooks.created([entry.seen or HookTask.of(entry.task) for entry in sound])
            return [entry.task for entry in sound]
        finally:
            self._relay.pass_on()

    def _take(self, most: int) -> list[Entry]:
        count = most if self._together else min(most, _CHUNK)
        batch = self._entries[:count]
        del self._entries[:count]
        return batch

    def _keep(self, box: Outbox | None) -> None:
        self.check_open()
        if box is not None and box not in self._attached:
            self._attached = [each for each in self._attached if len(each)] + [box]

    async def _write(self, batch: list[Entry]) -> None:
        self._batch = batch
        try:
            await self._send(await self._prepared(batch))
        except BaseException:
            # what was added meanwhile comes after these: it may hold their children
            self._entries[:0] = [entry for entry in batch if entry.created is None and entry.error is None]
            raise
        finally:
            self._batch = []

    async def _prepared(self, batch: Sequence[Entry]) -> list[Entry]:
        """What of `batch` may be written: not refused by a hook, and with parents that stand."""
        sound: list[Entry] = []
        for entry in batch:
            try:
                if entry.seen is not None and not entry.asked:
                    await self._ask_hooks(entry, entry.seen)
                if entry.family:
                    await self._join_family(entry)
            except Exception as error:  # an async hook is user code
                self._fail(entry, error)
                if self._together:
                    raise
            else:
                sound.append(entry)
        return sound

    async def _ask_hooks(self, entry: Entry, seen: HookTask) -> None:
        await hooks.refuse_or_change_async(seen)
        entry.take_context()
        entry.asked = True

    async def _join_family(self, entry: Entry) -> None:
        for _, parent in entry.family:
            if parent.home is self and parent.error is not None:
                raise InvalidTask(f"Its parent {parent.id} could not be written.") from parent.error
            if parent.home is not self:
                await self._join_parent(parent)
        moved = {provisional: parent.id for provisional, parent in entry.family}
        parents = tuple(moved.get(id, id) for id in entry.task.parents)
        if parents != entry.task.parents:
            entry.task = replace(entry.task, parents=parents)

    async def _join_parent(self, parent: Entry) -> None:
        if parent.home.connection in (None, self.connection):
            await parent.home.settle(parent)
        elif parent.created is None or not await self._writer.was_written(parent.id):
            raise InvalidTask(
                f"Its parent {parent.id} was added in a transaction that has not been committed: add the child on the "
                "same connection, or after the commit."
            )

    def _gave_up(self) -> DatabaseUnavailable:
        return DatabaseUnavailable(
            f"PostgreSQL did not take the tasks within {self.patience:g} s: see the log for its last answer."
        )

    def _check_attached(self) -> None:
        for box in self._attached:
            if (entry := box.forgotten) is not None:
                raise InvalidState(not_awaited(entry))

    async def _send(self, entries: list[Entry]) -> None:
        if not entries:
            return
        tried = any(entry.tried for entry in entries)
        for entry in entries:
            entry.tried = True
        if expected := [entry.task.id for entry in entries if entry.expected and entry.task.auto_remove]:
            with suppress(DatabaseUnavailable):
                await self._writer.expect(expected)
        try:
            losers = await self._put([entry.task for entry in entries], tried=tried)
        except QueuedTasksError:
            raise
        except Exception as error:  # what the database says of a row that it doesn't take
            if self._together:
                raise
            await self._send_apart(entries, error)
        else:
            self._wrote(entries, losers)

    async def _put(self, tasks: list[NewTask], *, tried: bool) -> dict[UUID, UUID]:
        if self._draft is not None:
            if await self._draft.finish():
                return {}
            self._draft, tried = None, True
        losers = await self._writer.write(tasks, repeat=tried or self.derive is not None)
        return without_own(losers) if tried else losers

    async def _send_apart(self, entries: list[Entry], error: Exception) -> None:
        """Find the bad tasks among others by halves."""
        if len(entries) == 1:
            self._fail(entries[0], error)
            return
        middle = len(entries) // 2
        await self._send(entries[:middle])
        orphans = [entry for entry in entries[middle:] if any(parent.error for _, parent in entry.family)]
        for orphan in orphans:
            self._fail(orphan, InvalidTask(f"A parent of task {orphan.id} could not be written."))
        await self._send([entry for entry in entries[middle:] if entry.error is None])

    def _wrote(self, entries: Sequence[Entry], losers: dict[UUID, UUID]) -> None:
        if not losers and not on_post_create:
            for entry in entries:
                entry.created = True
            return
        for entry in entries:
            winner = losers.get(entry.task.id)
            entry.created = winner is None
            if winner is not None:
                entry.winner = None if winner == entry.task.id else winner
            elif on_post_create:
                self._written.append(entry.seen or HookTask.of(entry.task))

    def _fail(self, entry: Entry, error: Exception) -> None:
        entry.error = error
        if not self._together:
            # not as the exception itself: the default log of loguru shows the values of variables, which may be secrets
            trace = formatted(type(error), error, error.__traceback__)
            logger.error("Task {} ({}) could not be written.\n{}", entry.id, entry.task.reference, trace)
            self._failed.append(entry)

    def _forget(self, entry: Entry) -> None:
        if entry in self._failed:
            self._failed.remove(entry)


def _never() -> bool:
    return False
