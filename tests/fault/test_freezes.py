"""Processes that stand still, and code that never gives way: found out, ended, and never believed afterwards."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager

import pytest

from queued_tasks import QueuedTasks, TaskCancelled, TaskTimeout
from tests.apps import trials
from tests.fault.trial import Trial
from tests.servers import Rows, Server, running_server
from tests.waiting import wait_until

LIMIT = 60  # seconds
TTL = 3  # seconds


@pytest.fixture
def first(database: str) -> AbstractAsyncContextManager[Server]:
    return running_server(database, name="first", concurrency=20, lease_ttl=TTL)


async def test_a_supervisor_that_stood_still_beyond_its_lease_starts_afresh_and_records_nothing(
    database: str, trial: Trial, rows: Rows, first: AbstractAsyncContextManager[Server]
) -> None:
    async with first as frozen:
        await trial.add(100, 0.3)
        await trial.under_way(20)
        async with running_server(database, name="second", concurrency=20, lease_ttl=TTL):
            await wait_until(lambda: _beats(rows, 2))
            workers = frozen.workers()
            await trial.add(200, 0.3)
            await trial.under_way(40)
            trial.strikes()
            frozen.signal(signal.SIGSTOP)
            await wait_until(
                lambda: rows.value("select exists (select from queued_tasks.server where end_reason = 'lost')")
            )
            await wait_until(lambda: trial.again())
            frozen.signal(signal.SIGCONT)
            await wait_until(lambda: not any(worker.is_running() for worker in workers))
            await frozen.wait_for_work()
            await trial.check()
        assert await rows.value("select count(*) from queued_tasks.server where name = 'first'") == 2
        assert "given up by its peers" in frozen.said


async def test_a_supervisor_that_stood_still_for_less_than_its_lease_goes_on(
    database: str, trial: Trial, rows: Rows
) -> None:
    async with (
        running_server(database, name="first", concurrency=20) as frozen,
        running_server(database, name="second", concurrency=20),
    ):
        await trial.add(200, 0.3)
        await trial.under_way(40)
        frozen.signal(signal.SIGSTOP)
        await wait_until(lambda: _silent_for(rows, 5))
        frozen.signal(signal.SIGCONT)
        await trial.check(ends=frozenset())


async def test_a_worker_that_stood_still_goes_on_where_it_was(database: str, trial: Trial) -> None:
    async with running_server(database, workers=2, concurrency=20) as server:
        await server.wait_for_standby()
        await trial.add(200, 0.3)
        await trial.under_way(40)
        frozen = trial.running()[0].pid
        os.kill(frozen, signal.SIGSTOP)
        await wait_until(lambda: all(run.pid == frozen for run in trial.running()))
        os.kill(frozen, signal.SIGCONT)
        await trial.check(ends=frozenset())


async def test_a_worker_that_stands_still_is_killed_once_a_task_of_it_is_overdue_and_nothing_is_failed_for_it(
    database: str, trial: Trial, tasks: QueuedTasks
) -> None:
    async with running_server(database, workers=2, concurrency=20) as server:
        await server.wait_for_standby()
        overdue = tasks.add_task(trials.work, str(trial.ledger), 1.0, timeout=2, max_retries=0)
        await trial.add(200, 0.3)
        await wait_until(lambda: any(run.task == overdue.id for run in trial.runs()))
        trial.strikes()
        os.kill(next(run.pid for run in trial.running() if run.task == overdue.id), signal.SIGSTOP)
        await overdue.wait(LIMIT)
        await trial.check()


async def test_a_task_that_blocks_its_loop_for_longer_than_the_lease_loses_nothing(
    database: str, trial: Trial, first: AbstractAsyncContextManager[Server]
) -> None:
    async with first, running_server(database, name="second", concurrency=20, lease_ttl=TTL):
        await trial.add(100, 0.1)
        await trial.add(1, TTL + 2, trials.block)
        await trial.add(100, 0.1)
        await trial.check(ends=frozenset())


@pytest.mark.parametrize(
    "function", [trials.spin, trials.spin_plainly, trials.swallow, trials.match_for_ages], ids=lambda it: it.__name__
)
async def test_code_that_never_gives_way_times_out_and_harms_no_other(
    database: str, trial: Trial, tasks: QueuedTasks, function: Callable[..., object]
) -> None:
    async with running_server(database, workers=2, concurrency=20):
        await trial.add(100, 0.2)
        stubborn = tasks.add_task(function, str(trial.ledger), timeout=0.5)
        await trial.add(200, 0.2)
        trial.strikes()
        with pytest.raises(TaskTimeout):
            await stubborn.wait(LIMIT)
        await trial.check()


@pytest.mark.parametrize("function", [trials.swallow, trials.match_for_ages], ids=lambda it: it.__name__)
async def test_code_that_never_gives_way_can_be_cancelled(
    database: str, trial: Trial, tasks: QueuedTasks, function: Callable[..., object]
) -> None:
    async with running_server(database, workers=2, concurrency=20):
        stubborn = tasks.add_task(function, str(trial.ledger))
        await trial.add(100, 0.2)
        await wait_until(lambda: any(run.task == stubborn.id for run in trial.runs()))
        assert await stubborn.cancel()
        with pytest.raises(TaskCancelled):
            await stubborn.wait(LIMIT)
        await trial.check()


async def _beats(rows: Rows, count: int) -> bool:
    return bool(await rows.value("select count(*) = $1 from queued_tasks.heartbeat where state = 'running'", count))


async def _silent_for(rows: Rows, seconds: float) -> bool:
    return bool(
        await rows.value(
            "select max(clock_timestamp() - beat_at) > make_interval(secs => $1) from queued_tasks.heartbeat", seconds
        )
    )
