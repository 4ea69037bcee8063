"""Limits of channels under fault. Bodies are counted by what they leave in the ledger."""

from __future__ import annotations

import math
import os
import signal
import time
from contextlib import AsyncExitStack

from tests.command import queued_tasks
from tests.fault.trial import Run, Trial
from tests.servers import Rows, Server, running_server
from tests.waiting import wait_until

CAP = 6
MANY = 240


async def test_a_cap_holds_while_servers_join_leave_and_are_killed(database: str, trial: Trial, rows: Rows) -> None:
    deaths: dict[int, float] = {}  # of processes, by the clock of the ledger
    async with AsyncExitStack() as servers:

        async def join(name: str) -> Server:
            server = running_server(database, name=name, concurrency=20, channels=f"mail:{CAP}")
            return await servers.enter_async_context(server)

        first, second = await join("first"), await join("second")
        await trial.add(MANY, 0.1, channel="mail")
        await trial.begun(30)
        await trial.under_way()
        worker = trial.runs()[-1].pid
        trial.strikes()
        os.kill(worker, signal.SIGKILL)
        deaths[worker] = time.monotonic()
        await trial.begun(80)
        pids = [process.pid for process in first.workers()]
        first.signal(signal.SIGKILL)
        deaths.update(dict.fromkeys(pids, time.monotonic()))
        await join("third")
        await trial.begun(140)
        assert await second.stop() == 0
        await trial.check()
    assert _most_at_once(trial.runs(), deaths) == CAP
    assert await rows.value("select count(*) from queued_tasks.token") == 0


async def test_a_paused_channel_starts_nothing_and_goes_on_where_it_was(database: str, trial: Trial) -> None:
    async with (
        running_server(database, name="first", concurrency=4),
        running_server(database, name="second", concurrency=4),
    ):
        await trial.add(200, 0.3, channel="mail")
        await trial.begun(8)
        assert (await queued_tasks("channels", "pause", "mail", database=database)).code == 0
        await wait_until(lambda: not trial.running())
        before = len(trial.runs())
        await trial.add(5, 0.0)  # of another channel, behind all of these
        await wait_until(lambda: len(trial.runs()) == before + 5)
        assert before < 200
        assert (await queued_tasks("channels", "resume", "mail", database=database)).code == 0
        await trial.check()


async def test_a_raised_cap_takes_effect_without_a_restart(database: str, trial: Trial) -> None:
    async with running_server(database, concurrency=20, channels="mail:1"):
        await trial.add(12, 0.3, channel="mail")
        await trial.begun(2)
        assert _most_at_once(trial.runs(), {}) == 1
        assert (await queued_tasks("channels", "set", "mail", "5", database=database)).code == 0
        await trial.check()
    assert _most_at_once(trial.runs(), {}) == 5


async def test_a_rate_is_never_exceeded_by_two_servers(database: str, trial: Trial) -> None:
    async with (
        running_server(database, name="first", concurrency=20, channels="mail:@20/s"),
        running_server(database, name="second", concurrency=20),
    ):
        await trial.add(80, 0.0, channel="mail")
        await trial.check()
    starts = sorted(run.began for run in trial.runs())
    assert len(starts) == 80
    # Whatever the window: a full bucket, and what flowed into it. Claims are counted, a little before the starts.
    late = 0.5
    for place, start in enumerate(starts):
        within = [at for at in starts[place:] if at < start + 1.0]
        assert len(within) <= 20 + 20 * (1.0 + late) + 1
    assert starts[-1] - starts[0] > (80 - 20 - 1) / 20 - late


async def test_keys_share_a_channel_however_many_tasks_one_of_them_has(database: str, trial: Trial) -> None:
    async with running_server(database, concurrency=20, channels="sync:6/key:2"):
        await trial.add(150, 0.05, channel="sync", key="big")
        await trial.add(10, 0.05, channel="sync", key="small")
        await trial.check()
    small = [trial.runs().index(run) for run in trial.runs()[-160:] if run.task in _last_added(trial, 10)]
    assert max(small) < 60  # not behind the 150 of the other


def _last_added(trial: Trial, count: int) -> set[object]:
    return set(sorted(trial.added)[-count:])


def _most_at_once(runs: list[Run], deaths: dict[int, float]) -> int:
    """How many bodies were alive at once; one that was killed lived until its process died."""
    changes = [(run.began, 1) for run in runs]
    changes += [(run.ended if run.ended is not None else deaths.get(run.pid, math.inf), -1) for run in runs]
    alive = most = 0
    for _, change in sorted(changes):
        alive += change
        most = max(most, alive)
    return most
