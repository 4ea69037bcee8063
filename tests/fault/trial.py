"""Try a queue by fault: tasks that leave a trace of each run, and what must hold of the records whatever happened."""

from __future__ import annotations

import asyncio
import json
import time
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import UUID

import asyncpg

from queued_tasks import QueuedTasks, Settings, TaskRef
from tests.apps import trials
from tests.databases import connected
from tests.waiting import wait_until

WORKER_DEATH = 4 * 1.0  # seconds: four times what is promised
SERVER_DEATH = 4 * 5.0
LEFT = """
select json_build_object(
    'ready', (select array_agg(r.id || ' in ' || r.lane) from queued_tasks.ready r),
    'delayed', (select count(*) from queued_tasks.delayed), 'inbox', (select count(*) from queued_tasks.inbox),
    'leases', (select array_agg(l.id || ' of ' || l.server || ': ' || l.ids::text) from queued_tasks.lease l),
    'servers', (select array_agg(h.server || ' ' || h.state) from queued_tasks.heartbeat h),
    'without an end', (select array_agg(t.id) from queued_tasks.task t
                        where not exists (select from queued_tasks.result r where r.id = t.id)))
"""
FOR_AGAIN = frozenset({"interrupted", "blocked", "crashed"})  # ends of attempts that no task is to blame for


@dataclass
class Run:
    """One run of a task's body; times are readings of the clock that all processes of a host share."""

    task: UUID
    attempt: int
    id: str
    pid: int
    began: float
    ended: float | None = None


class Trial:
    """Tasks that are watched from outside the queue: each run writes to a file, which no fault of a database harms."""

    def __init__(self, tasks: QueuedTasks, database: str, folder: Path, tell: Callable[[str], None]) -> None:
        self._tasks = tasks
        self._database = database
        self._tell = tell
        self.ledger = folder / "ledger"
        self.ledger.touch()
        self.added: set[UUID] = set()  # what was acknowledged as written
        self._struck_at: float | None = None
        self._went_on_in: float | None = None

    # ---- before the fault

    def put(self, seconds: float, function: Any = trials.work, **options: Any) -> TaskRef:
        """One task that takes so long; written with the next flush."""
        ref = self._tasks.add_task(function, str(self.ledger), seconds, **options)
        self.added.add(ref.id)
        return ref

    async def add(self, count: int, seconds: float = 0.05, function: Any = trials.work, **options: Any) -> None:
        """So many tasks, written."""
        for _ in range(count):
            self.put(seconds, function, **options)
        await self._tasks.flush()

    @asynccontextmanager
    async def stream(self, *, every: float = 0.02, seconds: float = 0.05) -> AsyncIterator[None]:
        """Add tasks steadily during the block; each that was acknowledged is part of the trial."""

        async def pour() -> None:
            while not enough.is_set():
                await self.add(1, seconds)
                with suppress(TimeoutError):
                    async with asyncio.timeout(every):
                        await enough.wait()

        enough = asyncio.Event()
        async with asyncio.TaskGroup() as group:
            group.create_task(pour())
            try:
                yield
            finally:
                enough.set()

    @asynccontextmanager
    async def enqueuing_through(self, dsn: str, **settings: Any) -> AsyncIterator[None]:
        """Add tasks by another way to the database during the block."""
        usual = self._tasks
        async with QueuedTasks.connect(dsn, settings=Settings(**settings)) as self._tasks:
            yield
        self._tasks = usual

    async def under_way(self, count: int = 1) -> None:
        """Wait until so many bodies run."""
        await wait_until(lambda: len(self.running()) >= count, deadline=60)

    async def begun(self, count: int) -> None:
        """Wait until so many runs have begun."""
        await wait_until(lambda: len(self.runs()) >= count, deadline=60)

    def strikes(self) -> None:
        """Say that the fault happens now."""
        self._struck_at = time.monotonic()

    async def goes_on(self) -> None:
        """Say that the fault is over, and wait until an urgent task that is added now has run."""
        self._struck_at = time.monotonic()
        urgent = self.put(0.0, priority=100)
        await self._tasks.flush()
        await wait_until(lambda: any(run.task == urgent.id for run in self.runs()), deadline=60)
        self._went_on_in = next(run.began for run in self.runs() if run.task == urgent.id) - self._struck_at

    # ---- what the ledger says

    def runs(self) -> list[Run]:
        """Every run, in the order of their beginnings."""
        runs: dict[str, Run] = {}
        for line in self.ledger.read_text().splitlines():
            what, task, attempt, id, pid, at = line.split()
            if what == "begin":
                runs[id] = Run(UUID(task), int(attempt), id, int(pid), float(at))
            else:
                runs[id].ended = float(at)
        return list(runs.values())

    def running(self) -> list[Run]:
        """The newest run of each task that has begun and not ended."""
        newest = {run.task: run for run in self.runs()}
        return [run for run in newest.values() if run.ended is None]

    def again(self) -> list[Run]:
        """All runs but the first of each task."""
        seen: set[UUID] = set()
        return [run for run in self.runs() if run.task in seen or seen.add(run.task)]  # type: ignore[func-returns-value]

    def recovered_in(self) -> float:
        """Seconds from the fault until the last task that it interrupted ran again; without any, until the next run.

        After `goes_on`: seconds that this took.
        """
        assert self._struck_at is not None
        if self._went_on_in is not None:
            return self._went_on_in
        later = [run.began - self._struck_at for run in self.again() if run.began > self._struck_at]
        fresh = [run.began - self._struck_at for run in self.runs() if run.began > self._struck_at]
        return max(later, default=min(fresh, default=0.0))

    # ---- after the fault

    async def finish(self, *, deadline: float = 90) -> None:
        """Wait until every task has ended and nothing of any is left in line or in a lease."""

        async def nothing_is_left() -> bool:
            with suppress(OSError, asyncpg.PostgresError, asyncpg.InterfaceError):
                return not await self._value(
                    "select exists (select from queued_tasks.ready) or exists (select from queued_tasks.delayed) "
                    "or exists (select from queued_tasks.inbox) or exists (select from queued_tasks.lease) "
                    "or exists (select from queued_tasks.task t "
                    "           where not exists (select from queued_tasks.result r where r.id = t.id))"
                )
            return False

        try:
            await wait_until(nothing_is_left, deadline=deadline)
        except AssertionError:
            raise AssertionError(f"what is left after {deadline:g} s: {await self._value(LEFT)}") from None

    async def _last_lines_are_there(self) -> bool:
        """Lines that a task logged while it ran may be written after its end."""
        return not await self._value(
            "select exists (select from queued_tasks.result r where r.state = 'done' and not exists "
            "(select from queued_tasks.log l where l.task_id = r.id and l.attempt = r.attempt))"
        )

    async def check(
        self,
        *,
        ends: frozenset[str] = FOR_AGAIN,
        away: bool = False,
        forgetful: bool = False,
        poisoned: bool = False,
    ) -> None:
        """Finish, then hold the records of the queue against the ledger.

        `ends`: how attempts may have ended beside the last one. `away`: PostgreSQL was, so that log lines may be
        missing. `forgetful`: PostgreSQL crashed, so that a claim may be
        lost, and its attempts run a second time under their number. `poisoned`: workers were killed under the same task
        so often that it may have been given up for that.
        """
        await self.finish()
        if not away:
            await wait_until(self._last_lines_are_there)
        runs = self.runs()
        self._say(runs)
        records = await self._records()
        self._each_ended_once(records, poisoned=poisoned)
        self._only_the_accepted_run_left_a_trace(records, runs, away=away)
        self._no_body_ran_without_need(records, runs, ends, forgetful=forgetful)

    def _say(self, runs: list[Run]) -> None:
        count = len({run.task for run in runs})
        recovered = "" if self._struck_at is None else f", recovered in {self.recovered_in():.1f} s"
        self._tell(f"{count} tasks, {len(runs) - count} bodies ran again{recovered}")

    def _each_ended_once(self, records: Records, *, poisoned: bool) -> None:
        missing = self.added - records.results.keys()
        assert not missing, f"acknowledged, and not there: {missing}"
        for id in self.added:
            result = records.results[id]
            if poisoned and result["exception_name"] == "WorkerDied":
                assert Counter(end for (task, _), end in records.ends.items() if task == id)["crashed"] == 2
            else:
                assert result["state"] == "done", dict(result)

    def _only_the_accepted_run_left_a_trace(self, records: Records, runs: list[Run], *, away: bool) -> None:
        by_id = {run.id: run for run in runs}
        for id, result in records.results.items():
            if result["state"] != "done":
                continue
            accepted = by_id[json.loads(result["result"])]
            assert (accepted.task, accepted.attempt) == (id, result["attempt"])
            assert accepted.ended is not None
            assert json.loads(records.contexts[id])["run"] == accepted.id
            logged = records.logs[id, accepted.attempt] or away * [accepted.id]
            assert logged == [accepted.id], f"{logged} stands for {[run for run in runs if run.task == id]}"
        for (id, attempt), lines in records.logs.items():
            assert len(lines) <= 1, f"attempt {attempt} of {id} is logged by {lines}"

    def _no_body_ran_without_need(
        self, records: Records, runs: list[Run], ends: frozenset[str], *, forgetful: bool
    ) -> None:
        assert set(records.ends.values()) <= ends
        for run in runs:
            if run.attempt != records.results[run.task]["attempt"]:
                assert (run.task, run.attempt) in records.ends, f"{run} is not on record"
        twice = [key for key, count in Counter((run.task, run.attempt) for run in runs).items() if count > 1]
        assert forgetful or not twice, f"one attempt, two runs: {twice}"

    async def _records(self) -> Records:
        async with connected(self._database) as connection:
            results = await connection.fetch("select * from queued_tasks.result")
            ends = await connection.fetch("select id, attempt, outcome from queued_tasks.attempt")
            contexts = await connection.fetch("select id, context from queued_tasks.task_view")
            lines = await connection.fetch(
                "select task_id, attempt, message from queued_tasks.log where logger ~ 'trials'"
            )
        logs: dict[tuple[UUID, int], list[str]] = defaultdict(list)
        for line in lines:
            logs[line["task_id"], line["attempt"]].append(line["message"])
        return Records(
            {row["id"]: row for row in results},
            {(row["id"], row["attempt"]): row["outcome"] for row in ends},
            {row["id"]: row["context"] for row in contexts},
            logs,
        )

    async def _value(self, query: str) -> Any:
        async with connected(self._database) as connection:
            return await connection.fetchval(query)


@dataclass(frozen=True)
class Records:
    """What the queue has on record: ends of tasks, ends of attempts before those, contexts, log lines by attempt."""

    results: dict[UUID, asyncpg.Record]
    ends: dict[tuple[UUID, int], str]
    contexts: dict[UUID, str]
    logs: dict[tuple[UUID, int], list[str]]
