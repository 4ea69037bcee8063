"""The verbs of a task's life: add, claim, settle, give back, cancel, stop, resume. What each decides is in its SQL."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from operator import attrgetter
from typing import Any
from uuid import UUID

import asyncpg
from asyncpg.pgproto import pgproto

from ..errors import QueuedTasksError
from ..ids import new_id, plain_id
from ..signing import Signer
from ..task import Claimed, ContextWrite, LogWrite, NewTask, ServerId, Settled, Stance
from .columns import column, context_columns, forms_of, later, log_columns, shared, stance_columns, uuid_array
from .lanes import Lane, Lanes
from .link import CALL_TIMEOUT, Link

MOST_REFUSED = 1_000  # tasks that one transaction ends because nobody may run them


def new_lease() -> UUID:
    """An id for a claim, of the type that rows have: it is hashed and sent for each attempt, in C with that one."""
    lease: UUID = pgproto.UUID(new_id().bytes)
    return lease


class NotPlain(Exception):
    """These tasks can't be added part by part."""


@dataclass(frozen=True, slots=True)
class Claim:
    """What a claim took. `next_in`: seconds until a channel with a rate lets more through.

    `lows` are the low-waters of lanes where keys take turns, which their tasks say nothing of: below zero, see `Line`.
    """

    tasks: list[Claimed]
    next_in: float | None
    lows: dict[int, int]


@dataclass(frozen=True, slots=True)
class Settlement:
    """What became of a settled batch: ids that were no longer ours, how many tasks may be claimed now, whom to tell.

    `told` has, for each topic of somebody who waits, the ids of the tasks that ended.
    """

    lost: frozenset[UUID]
    lined: int
    told: dict[str, list[str]]


@dataclass(frozen=True, slots=True)
class Interruption:
    """Which tasks were ended on the spot, which servers were asked, whom to tell (see Settlement)."""

    ended: tuple[UUID, ...]
    asked: tuple[UUID, ...]
    told: dict[str, list[str]]


class TaskStore:
    """Tasks in PostgreSQL, over one link. Every verb is one transaction. With a `signer` what is added is signed."""

    def __init__(self, link: Link, signer: Signer | None = None) -> None:
        self._link = link
        self._signer = signer
        self.lanes = Lanes(link)

    async def add(self, tasks: Sequence[NewTask], *, repeat: bool = False) -> dict[UUID, UUID]:
        """See Writer.write."""
        columns, session = await self._columns(tasks)
        rows = await self._link.fetch("add_tasks", *columns, repeat, session=session)
        return {row["loser"]: plain_id(row["winner"]) for row in rows}

    async def warm_up(self, timeout: float) -> None:
        """Let PostgreSQL work out how to add tasks, before the first ones of this session wait for it.

        What keeps it from that is raised to who adds some, if anybody does.
        """
        with suppress(QueuedTasksError, asyncpg.PostgresError):
            await self._link.fetch("add_tasks", *self._arrays((), None, ()), False, timeout=timeout)

    @asynccontextmanager
    async def adding(
        self, first: Sequence[NewTask], timeout: float
    ) -> AsyncIterator[Callable[[Sequence[NewTask]], Awaitable[object]]]:
        """A transaction that adds tasks part by part, by the call that it gives; `first` are to be the first part.

        That raises NotPlain for tasks that would make it wait for others: these hold what they take to the commit.
        """
        session = await self.lanes.ensure(forms_of(first)[1])
        async with self._link.transaction(timeout, session=session) as run:

            async def add(tasks: Sequence[NewTask]) -> None:
                forms, examples = forms_of(tasks)
                if any(map(_unique_key, tasks)) or any(map(_parents, tasks)) or not self.lanes.has(examples):
                    raise NotPlain("they wait for others, or for a lane of their own")
                await run("add_tasks", *self._arrays(tasks, forms, examples), False)

            yield add

    async def session(self) -> int:
        """See Link.session."""
        return await self._link.session()

    async def claim(
        self,
        server: ServerId,
        lease: UUID,
        lanes: Sequence[tuple[Lane, int, int]],
        limit: int,
        *,
        session: int | None = None,
    ) -> Claim:
        """Take up to `limit` tasks from `lanes` (each with its rank and low-water), most urgent first.

        Tasks that another server is claiming right now are passed over. None means that these lanes hold nothing above
        their low-waters that the limits of channels let through. Raises LeaseLost when the server was given up.
        `session`: see Link.
        """
        rows = await self._link.fetch(
            "claim",
            server,
            lease,
            [lane.id for lane, _, _ in lanes],
            [rank for _, rank, _ in lanes],
            [low for _, _, low in lanes],
            limit,
            session=session,
        )
        places: dict[int, tuple[Any, ...]] = {lane.id: (lane.channel, lane.priority) for lane, _, _ in lanes}
        next_in, lows = None, {}
        while rows and rows[-1]["id"] is None:
            last = rows.pop()
            if last["lane"] is None:
                next_in = last["timeout"]
            else:
                lows[last["lane"]] = last["seq"]
        return Claim([Claimed(lease, *row, *places[row[0]]) for row in rows], next_in, lows)

    async def is_claimable(self, server: ServerId, lanes: Sequence[tuple[Lane, int, int]], *, soon: bool) -> bool:
        """Whether a claim from `lanes` would take anything; `soon`: or could once a channel that is full is not."""
        columns = [lane.id for lane, _, _ in lanes], [rank for _, rank, _ in lanes], [low for _, _, low in lanes]
        return bool(await self._link.fetch_value("is_claimable", server, *columns, soon))

    async def settle(
        self,
        server: ServerId,
        settled: Sequence[Settled],
        *,
        full: Sequence[UUID],
        part: Sequence[UUID],
        contexts: Sequence[ContextWrite] = (),
        logs: Sequence[LogWrite] = (),
        added: Sequence[tuple[Settled, Sequence[NewTask]]] = (),
        session: int | None = None,
        timeout: float = CALL_TIMEOUT,
    ) -> Settlement:
        """Record how attempts ended. `full` are the leases that hold nothing else, `part` the others. May be repeated.

        In the same transaction go the last contexts and log lines of these attempts, and the tasks that they added,
        unless the attempt was lost.
        """
        arguments = self._settle_arguments(server, settled, full, part)
        if not (contexts or logs or added):
            (row,) = await self._link.fetch("settle", *arguments, timeout=timeout, session=session)
            return _settlement(row)
        # not in the transaction below
        laned = await self.lanes.ensure([task for _, tasks in added for task in tasks])
        async with self._link.transaction(timeout, session=laned if session is None else session) as run:
            if contexts:
                await run("write_context", server, *context_columns(contexts))
            if logs:
                await run("write_logs", server, *log_columns(logs), False)
            (row,) = await run("settle", *arguments)
            settlement = _settlement(row)
            leases = _last_leases(settled) if added else {}
            ours = (tasks for end, tasks in added if end.id not in settlement.lost and leases[end.id] == end.lease)
            tasks = [task for tasks in ours for task in tasks]
            if tasks:
                await run("add_tasks", *self._arrays(tasks, *forms_of(tasks)), True)
        return Settlement(settlement.lost, settlement.lined + len(tasks), settlement.told)

    async def record(
        self, server: ServerId, contexts: Sequence[ContextWrite], logs: Sequence[LogWrite]
    ) -> frozenset[UUID]:
        """Store contexts and log lines of attempts, if they are still this server's; the tasks whose contexts are."""
        ours: frozenset[UUID] = frozenset()
        if contexts:
            rows = await self._link.fetch("write_context", server, *context_columns(contexts))
            ours = frozenset(row["id"] for row in rows)
        if logs:
            await self._link.fetch("write_logs", server, *log_columns(logs), True)
        return ours

    async def give_back(
        self, server: ServerId, claimed: Sequence[Claimed], *, full: Sequence[UUID], session: int | None = None
    ) -> int:
        """Put claimed tasks that never started back into line; how many were still ours. `full`, `session`: see settle.

        May be repeated.
        """
        leases, ids = [it.lease for it in claimed], [it.id for it in claimed]
        (row,) = await self._link.fetch("give_back", server, leases, ids, full, session=session)
        return int(row[0])

    async def park(
        self,
        server: ServerId,
        claimed: Sequence[Claimed],
        stances: Sequence[Stance],
        *,
        full: Sequence[UUID],
        session: int | None = None,
    ) -> tuple[int, int]:
        """Put what this server can't run into the lanes of its functions, and end what no server may run.

        `stances`: why, for each function. `full`, `session`: see settle. May be repeated. Returns as take_stance does.
        """
        columns = [it.lease for it in claimed], [it.id for it in claimed], full, *stance_columns(stances)
        (row,) = await self._link.fetch("park", server, *columns, MOST_REFUSED, session=session)
        return row["ended"], row["lined"]

    async def take_stance(self, server: ServerId, stances: Sequence[Stance]) -> tuple[int, int]:
        """Say which functions this server doesn't run, and end what no server may run.

        Returns how many tasks ended, after MOST_REFUSED of which there may be more, and how many others may be claimed.
        """
        row = await self._link.fetch_one("take_stance", server, *stance_columns(stances), MOST_REFUSED)
        assert row is not None
        return row["ended"], row["lined"]

    async def drop_lease(self, server: ServerId, lease: UUID) -> None:
        """Put back what a claim took whose answer never arrived, if it was carried out at all; it never will be now."""
        await self._link.fetch("drop_lease", server, lease)

    async def cancel(self, ids: Sequence[UUID], reason: str) -> Interruption:
        """Cancel what has not started, ask the servers of what runs."""
        row = await self._link.fetch_one("cancel_tasks", ids, reason)
        assert row is not None
        return Interruption(tuple(row["ended"] or ()), tuple(row["asked"] or ()), _told(row))

    async def stop(self, ids: Sequence[UUID]) -> tuple[UUID, ...]:
        """Ask the servers of running tasks to stop them; these servers."""
        return tuple(await self._link.fetch_value("stop_tasks", ids) or ())

    async def resume(self, ids: Sequence[UUID]) -> tuple[UUID, ...]:
        """Let stopped tasks run again; those that were stopped."""
        return tuple(await self._link.fetch_value("resume_tasks", ids) or ())

    async def _columns(self, tasks: Sequence[NewTask]) -> tuple[list[Any], int]:
        """The arguments of add_tasks, and the session in which there is a lane for each of these tasks."""
        forms, examples = forms_of(tasks)
        session = await self.lanes.ensure(examples)
        return self._arrays(tasks, forms, examples), session

    def _arrays(self, tasks: Sequence[NewTask], forms: list[int] | None, examples: Sequence[NewTask]) -> list[Any]:
        """The arguments of add_tasks: what is each task's own, then what many have in common, once for each form."""
        sign = self._signer.sign if self._signer else None
        return [
            [task.id for task in tasks],
            forms,
            f"[{','.join([task.args for task in tasks])}]",
            column([task.kwargs for task in tasks]),
            column([task.key for task in tasks]),
            column([task.run_at for task in tasks]),
            column([task.expires_at for task in tasks]),
            column([task.unique_key for task in tasks]),
            column([uuid_array(task.parents) if task.parents else None for task in tasks]),
            column([task.context for task in tasks]),
            column([sign(task) if sign else task.signature for task in tasks]),
            [task.function for task in examples],
            [task.executor for task in examples],
            [task.name for task in examples],
            [task.channel for task in examples],
            [self.lanes.id_of(task) for task in examples],
            [task.priority for task in examples],
            [task.max_retries for task in examples],
            [task.timeout for task in examples],
            [task.auto_remove for task in examples],
            [None if task.on_parent_failure == "cascade" else task.on_parent_failure for task in examples],
        ]

    def _settle_arguments(
        self, server: ServerId, settled: Sequence[Settled], full: Sequence[UUID], part: Sequence[UUID]
    ) -> list[Any]:
        now = time.monotonic()
        return [
            server,
            full,
            part,
            [end.lease for end in settled],
            [end.id for end in settled],
            later([end.attempt for end in settled]),
            shared([end.outcome for end in settled]),
            [end.took + now - end.ended for end in settled],
            [end.took for end in settled],
            column([end.result for end in settled]),
            column([end.delay for end in settled]),
            column([end.exception_name for end in settled]),
            column([end.exception_message for end in settled]),
            column([end.exception_traceback for end in settled]),
            [end.id for end in settled if end.flagged],
        ]


_unique_key, _parents = attrgetter("unique_key"), attrgetter("parents")


def _last_leases(settled: Sequence[Settled]) -> dict[UUID, UUID]:
    """Of two leases under which a task has ends the newer: the older one went with a crash of PostgreSQL."""
    return dict(sorted((end.id, end.lease) for end in settled))


def _settlement(row: Any) -> Settlement:
    return Settlement(frozenset(row["lost"] or ()), row["lined"], _told(row))


def _told(row: Any) -> dict[str, list[str]]:
    told: dict[str, list[str]] = {}
    for entry in row["told"] or ():
        topic, _, id = entry.partition(" ")
        told.setdefault(topic, []).append(id)
    return told
