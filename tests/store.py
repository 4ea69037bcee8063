"""The store as tests use it: short verbs over a database, and sessions that hold a transaction open."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, nullcontext
from typing import Any
from uuid import UUID

import asyncpg

from queued_tasks.runtime.ids import new_id
from queued_tasks.runtime.store.link import CALL_TIMEOUT, Link, Row, translate
from queued_tasks.runtime.store.reads import Reads
from queued_tasks.runtime.store.servers import Beat, Peer, ServerStore
from queued_tasks.runtime.store.statements import load
from queued_tasks.runtime.store.tasks import Settlement, TaskStore
from queued_tasks.runtime.store.upkeep import Upkeep
from queued_tasks.runtime.task import Claimed, Executor, LeaseId, NewTask, ServerId, Settled
from tests.waiting import wait_until

SCHEMA = "queued_tasks"


def new_task(**fields: Any) -> NewTask:
    """A task of the function `app:work`, with these fields set otherwise."""
    return NewTask(**{"id": new_id(), "function": "app:work", "executor": Executor.ASYNC, "args": "[]", **fields})


def ended(claimed: Claimed, outcome: str = "done", **fields: Any) -> Settled:
    """How an attempt ended, a hundredth of a second after it began."""
    if outcome == "failed":
        fields = {"exception_name": "ValueError", "exception_message": "no", **fields}
    own = {"lease": claimed.lease, "id": claimed.id, "attempt": claimed.attempt, "flagged": claimed.flagged}
    return Settled(outcome=outcome, took=0.01, ended=time.monotonic(), **{**own, **fields})


class Session(Link):
    """A link over one connection that is given: what it runs happens in the transaction that is open there."""

    def __init__(self, dsn: str, connection: asyncpg.Connection, schema: str = SCHEMA) -> None:
        super().__init__(dsn, schema, name="test")
        self.connection = connection

    @property
    def open_session(self) -> int:
        return 0

    async def fetch(
        self,
        statement: str,
        *args: object,
        timeout: float = CALL_TIMEOUT,
        session: int | None = None,  # noqa: ARG002  # there is only this one
    ) -> list[Row]:
        try:
            return await self.connection.fetch(load(self.schema)[statement], *args, timeout=timeout)  # type: ignore[no-any-return]
        except Exception as error:
            meaning = translate(error, self.connection)
            if meaning is None:
                raise
            raise meaning from error

    @asynccontextmanager
    async def transaction(
        self,
        timeout: float = CALL_TIMEOUT,
        *,
        session: int | None = None,  # noqa: ARG002  # there is only this one
    ) -> AsyncIterator[Callable[..., Awaitable[list[Row]]]]:
        opened = self.connection.is_in_transaction()
        async with asyncio.timeout(timeout), nullcontext() if opened else self.connection.transaction():
            yield self.fetch

    async def begin(self) -> None:
        """Open a transaction that stays open until `commit`."""
        await self.connection.execute("begin")

    async def commit(self) -> None:
        await self.connection.execute("commit")


class Store:
    """Every verb of the store over one session, with the arguments that tests rarely care about filled in."""

    def __init__(self, dsn: str, session: Session, stack: AsyncExitStack) -> None:
        self.dsn = dsn
        self.session = session
        self.tasks = TaskStore(session)
        self.servers = ServerStore(session)
        self.upkeep = Upkeep(session)
        self.reads = Reads(session)
        self.lows: dict[int, int] = {}  # of lanes where keys take turns, as a claimer keeps them
        self._stack = stack

    @classmethod
    async def open(cls, dsn: str, stack: AsyncExitStack) -> Store:
        """A store over a connection of its own, which is closed with the stack."""
        connection = await asyncpg.connect(dsn)
        stack.push_async_callback(connection.close, timeout=5)
        return cls(dsn, Session(dsn, connection), stack)

    async def another(self) -> Store:
        """A second session on the same database."""
        return await Store.open(self.dsn, self._stack)

    async def begin(self) -> None:
        await self.session.begin()

    async def commit(self) -> None:
        await self.session.commit()

    async def rows(self, query: str, *args: object) -> list[Any]:
        """The rows of a query; a row of one column is that value."""
        found = await self.session.connection.fetch(query, *args)
        return [row[0] if len(row) == 1 else tuple(row) for row in found]

    async def value(self, query: str, *args: object) -> Any:
        return await self.session.connection.fetchval(query, *args)

    async def add(self, count: int = 1, **fields: Any) -> list[NewTask]:
        """Add so many tasks alike."""
        tasks = [new_task(**fields) for _ in range(count)]
        await self.tasks.add(tasks)
        return tasks

    async def one(self, **fields: Any) -> NewTask:
        (task,) = await self.add(1, **fields)
        return task

    async def server(self, name: str = "server") -> ServerId:
        """A server that may claim."""
        server = ServerId(new_id())
        await self.servers.register(server, name=name, host="host", pid=1, version="0", lock_key=None)
        return server

    async def peer(self, server: ServerId) -> Peer:
        """A server as the others see it."""
        observer = await self.server("observer")
        news = await self.servers.beat(
            observer, Beat(lock_key=None, state="running", workers=0, slots=0, busy=0, details={})
        )
        return next(peer for peer in news.peers if peer.id == server)

    async def rescue(self, server: ServerId) -> int | None:
        return await self.servers.rescue(await self.peer(server))

    async def claim(
        self, server: ServerId, limit: int = 100, *, low: int = 0, lease: LeaseId | None = None
    ) -> list[Claimed]:
        """Claim from all lanes, in the order that a server claims them."""
        await self.tasks.lanes.refresh()
        lanes = list(self.tasks.lanes)
        urgencies = sorted({(-lane.priority, not lane.again) for lane in lanes})
        ranks = {lane.id: urgencies.index((-lane.priority, not lane.again)) for lane in lanes}
        places = [(lane, ranks[lane.id], low or self.lows.get(lane.id, 0)) for lane in lanes]
        claim = await self.tasks.claim(server, lease or LeaseId(new_id()), places, limit)
        self.lows |= claim.lows
        return sorted(claim.tasks, key=lambda it: (ranks[it.lane], it.seq))

    async def claim_one(self, server: ServerId) -> Claimed:
        (claimed,) = await self.claim(server)
        return claimed

    async def settle(self, server: ServerId, *settled: Settled, **fields: Any) -> Settlement:
        """Settle; the leases are full unless `part` names them."""
        part = fields.pop("part", [])
        full = fields.pop("full", [*{end.lease for end in settled} - {*part}])
        return await self.tasks.settle(server, settled, full=full, part=part, **fields)

    async def run(self, server: ServerId, outcome: str = "done", **fields: Any) -> list[Claimed]:
        """Claim all that there is, and settle it so."""
        claimed = await self.claim(server, 20_000)
        if claimed:
            await self.settle(server, *(ended(it, outcome, **fields) for it in claimed))
        return claimed

    async def state(self, task: NewTask | Claimed | UUID) -> str | None:
        """The state of a task, None when there is none."""
        id = task if isinstance(task, UUID) else task.id
        state = await self.value("select state::text from queued_tasks.task_view where id = $1", id)
        return None if state is None else str(state)

    async def states(self, tasks: Sequence[NewTask]) -> list[str | None]:
        return [await self.state(task) for task in tasks]

    async def count(self, table: str) -> int:
        """How many rows a table of the schema has."""
        return int(await self.value(f"select count(*) from queued_tasks.{table}"))  # names from the tests

    async def until_blocked(self, waiting: Store) -> None:
        """Return once the other session waits for a lock."""
        pid = waiting.session.connection.get_server_pid()
        await wait_until(lambda: self.value("select cardinality(pg_blocking_pids($1)) > 0", pid))


async def blocked(observer: Store, waiting: Store, call: Awaitable[Any]) -> asyncio.Future[Any]:
    """Start `call`, which `waiting` makes, and return it once it waits for a lock."""
    future = asyncio.ensure_future(call)
    watch = asyncio.ensure_future(observer.until_blocked(waiting))
    await asyncio.wait([future, watch], return_when=asyncio.FIRST_COMPLETED)
    if not watch.done():
        watch.cancel()
        raise AssertionError(f"did not wait: {future}")
    return future
