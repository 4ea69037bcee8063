"""The queue as a process sees it that has connections of its own: a web application, a script, the command line."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any
from uuid import UUID

from msgspec.structs import replace
from pydantic import SecretStr

from .announce import Announcer, wake_topic
from .backend import End, not_found
from .bound import Bound
from .database import prepare, with_key
from .ear import Ear, OwnEar
from .entry import Entry
from .errors import DatabaseUnavailable, InvalidState, SignatureError
from .ids import new_id
from .outbox import Outbox
from .settings import Settings
from .signing import Seals, signer_of
from .store.link import Link, Row
from .store.overview import Overview, overview
from .store.own_link import OwnLink
from .store.reads import Reads
from .store.tasks import TaskStore
from .task import Executor, NewTask, Task, TaskLog, TaskState
from .waiting import Waiters
from .watch import MOST_LINES, News
from .writer import GroupWriter
from .writing import Draft

_CONNECT_PATIENCE = 10.0  # seconds
_WARMING = 2.0  # seconds, should somebody have locked the tables
_STORED = tuple(name for name in NewTask.__struct_fields__ if name != "id")
_UNDER_WAY = (TaskState.ENQUEUED, TaskState.WAITING, TaskState.DOING)


@dataclass(frozen=True, slots=True)
class Connections:
    """Those of a backend, its own or shared ones: for what is added, for all else that is asked, for what is said."""

    writes: Link
    calls: Link
    side: Link
    ear: Ear

    @classmethod
    def of(cls, dsn: str, settings: Settings) -> Connections:
        """Connections that open when they are first needed, and that nobody opens again once they are closed."""
        writes, calls, side = (
            OwnLink(dsn, settings.schema, name=name, statement_cache=settings.statement_cache)
            for name in ("writer", "client", "announcer")
        )
        listen = settings.listen_database_url
        return cls(writes, calls, side, OwnEar(listen.get_secret_value() if listen else dsn, settings.schema))

    async def close(self) -> None:
        """Close them all; none of them is to be shared."""
        self.ear.close()
        for link in (self.writes, self.calls, self.side):
            await link.close()


class DirectBackend:
    """The verbs over connections to a database whose schema is fit for use: see `open_backend`."""

    def __init__(self, connections: Connections, settings: Settings) -> None:
        self._connections = connections
        self._bound = Bound()
        self._calls = connections.calls
        notified = settings.use_postgresql_notify
        self._announcer = Announcer(connections.side, wake_topic(settings)) if notified else None
        self._waiters = Waiters(self._calls, connections.ear, settings)
        self._signer, self._seals = signer_of(settings), Seals.of(settings)
        self._writes = TaskStore(connections.writes, self._signer)
        self._writer = GroupWriter(self._writes, self._announcer)
        self._store = TaskStore(self._calls)
        self._reads = Reads(self._calls)

    @property
    def signs(self) -> bool:
        return self._signer is not None

    async def warm_up(self) -> None:
        """Open the connection that writes, and let PostgreSQL work out how: the first request need not wait for it."""
        await self._writes.warm_up(_WARMING)

    async def write(self, tasks: Sequence[NewTask], *, repeat: bool = False) -> dict[UUID, UUID]:
        self._bound.check()
        return await self._writer.write(tasks, repeat=repeat)

    def draft(self, patience: float) -> Draft | None:
        self._bound.check()
        return self._writer.draft(patience)

    async def get(self, id: UUID) -> Task | None:
        return await self._reads.task(id)

    async def page(
        self, *, state: TaskState | None, name: str | None, channel: str | None, before: UUID | None, limit: int
    ) -> list[Task]:
        return await self._reads.tasks(state=state, name=name, channel=channel, before=before, limit=limit)

    async def logs(self, id: UUID, *, after: int | None, limit: int) -> list[TaskLog]:
        lines = await self._reads.logs(id, after=after, limit=limit)
        if not lines:
            await self._is_known(id)
        return lines

    async def pending(self) -> int:
        return await self._reads.pending()

    async def cancel(self, id: UUID) -> bool:
        interruption = await self._store.cancel([id], "on request")
        if self._announcer:
            self._announcer.wished(interruption.asked)
            self._announcer.ended(interruption.told)
        return bool(interruption.ended or interruption.asked) or await self._is_known(id)

    async def stop(self, id: UUID) -> bool:
        servers = await self._store.stop([id])
        if self._announcer:
            self._announcer.wished(servers)
        return bool(servers) or await self._is_known(id)

    async def retry(self, id: UUID, *, subtree: bool = False) -> UUID:
        source = await self._calls.fetch_one("retry_source", [id])
        if source is None:
            raise not_found(id)
        state = TaskState(source["state"])
        if state is TaskState.STOPPED and await self._resume(id):
            return id
        if state in _UNDER_WAY:
            raise InvalidState(f"Task {id} is {state}: only one that has ended or was stopped can be retried.")
        if source["holder"] is not None:
            raise _key_is_held(id, source["holder"])
        sources = [source]
        if subtree:
            family = [row["id"] for row in await self._calls.fetch("ended_with", id)]
            sources += await self._calls.fetch("retry_source", family)
        outbox = Outbox(self, together=True)
        for clone in _clones([(self._checked(_source(row["id"], row)), row) for row in sources]):
            outbox.add(Entry(clone, outbox))
        entries = outbox.entries
        await outbox.flush()
        if not entries[0].created:
            raise _key_is_held(id, entries[0].id)
        return entries[0].id

    async def was_written(self, id: UUID) -> bool:
        return await self._reads.was_written(id)

    async def note(self, id: UUID, message: str, exception: str) -> None:
        await self._calls.fetch("write_note", id, message, exception)

    async def expect(self, ids: Sequence[UUID]) -> None:
        await self._waiters.expect(ids)

    async def signed(self, tasks: Sequence[NewTask]) -> list[NewTask]:
        signer = self._signer
        return [*tasks] if signer is None else [replace(task, signature=signer.sign(task)) for task in tasks]

    async def news(self, id: UUID, progress: str, line: int) -> News:
        progress = await self._waiters.progress_of(id, progress)
        task = await self._reads.task(id)
        if task is None:
            raise not_found(id)
        logs = await self._reads.logs(id, after=line, limit=MOST_LINES)
        return News(task=task, progress=progress, logs=logs)

    async def wait(self, id: UUID, timeout: float | None) -> End:
        return await self._waiters.end_of(id, timeout)

    async def overview(self, lease_ttl: timedelta) -> Overview:
        """How the whole queue is at this moment."""
        return await overview(self._calls, lease_ttl)

    async def close(self) -> None:
        """Leave, and close every connection. Each call raises InvalidState from now on, those under way included."""
        try:
            await self.leave()
        finally:
            await self._connections.close()

    async def leave(self) -> None:
        """End what goes on behind the calls. Who waits is told; what is still to be written is lost: flush before."""
        await self._writer.close()
        await self._waiters.close()
        if self._announcer:
            await self._announcer.close()

    def _checked(self, source: NewTask) -> NewTask:
        """A task to be cloned, for its clone is signed anew: not one that somebody else wrote or altered."""
        flaw = None
        if self._seals is not None:
            flaw = self._seals.flaw_of(source)
        elif source.signature is not None:
            flaw = "it is signed, and a clone could not be signed here; set the QUEUE_SECRET_KEY of its enqueuer"
        if flaw is not None:
            raise SignatureError(f"Task {source.id} can't be retried: {flaw}.")
        return source

    async def _is_known(self, id: UUID) -> bool:
        """False for a task that is there, and has nothing left to be interrupted."""
        if not (await self._reads.ends([id]))[id]["known"]:
            raise not_found(id)
        return False

    async def _resume(self, id: UUID) -> bool:
        if not await self._store.resume([id]):
            return False
        if self._announcer:
            await self._store.lanes.refresh()
            self._announcer.lined({lane.id: 1 for lane in self._store.lanes if lane.again})
        return True


async def open_backend(url: str | None, settings: Settings) -> DirectBackend:
    """The backend for this database, else that of the settings, else the embedded one.

    Raises:
        SchemaOutdated: it needs `queued-tasks migrate`.
        DatabaseUnavailable: it could not be reached within ten seconds.
        ConfigurationError: the URL is malformed, or there is none and no embedded PostgreSQL.
    """
    if url is not None:
        settings = settings.model_copy(update={"database_url": SecretStr(url)})
    deadline = time.monotonic() + _CONNECT_PATIENCE
    pause = 0.1
    while True:
        try:
            dsn = await prepare(settings)
            backend = DirectBackend(Connections.of(dsn, settings), with_key(settings))
        except DatabaseUnavailable as error:
            if time.monotonic() + pause > deadline:
                raise DatabaseUnavailable(f"{error} Tried for {_CONNECT_PATIENCE:g} s; is the URL right?") from error
        else:
            await backend.warm_up()
            return backend
        await asyncio.sleep(pause)
        pause = min(pause * 2, 1.0)


def _key_is_held(id: UUID, holder: UUID) -> InvalidState:
    return InvalidState(
        f"Task {id} can't be retried now: task {holder} has its unique key and is under way. Wait for it, or cancel it."
    )


def _source(id: UUID, row: Row) -> NewTask:
    stored: dict[str, Any] = {name: row[name] for name in _STORED}
    stored["executor"] = Executor(row["executor"])
    stored["on_parent_failure"] = row["on_parent_failure"] or "cascade"
    stored["parents"] = tuple(row["parents"] or ())
    return NewTask(id=id, **stored)


def _clones(sources: Sequence[tuple[NewTask, Row]]) -> list[NewTask]:
    """The first task once more, and the others, whose parents are the clones where these were their parents."""
    ids = {source.id: new_id() for source, _ in sources}
    first, *others = [
        # not its times, which are over
        replace(
            source,
            id=ids[source.id],
            name=f"{row['called']}_retry",
            run_at=None,
            expires_at=None,
            parents=tuple(ids.get(parent, parent) for parent in row["standing"]),
            context=None if row["reached"] == "{}" else row["reached"],
            signature=None,
        )
        for source, row in sources
    ]
    # who retries a task by hand wants it to run, whatever became of its parents
    return [replace(first, on_parent_failure="run"), *others]
