"""Processes killed without warning: what they ran is soon run again, and recorded once."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import time
from collections.abc import Callable
from contextlib import suppress

import psutil
import pytest

from tests.fault.trial import SERVER_DEATH, WORKER_DEATH, Trial
from tests.servers import Server, running_server

MANY = 300
AT_RANDOM = 60  # seconds


async def test_one_killed_worker(database: str, trial: Trial) -> None:
    async with running_server(database, workers=2, concurrency=20) as server:
        await server.wait_for_standby()
        await trial.add(MANY, 0.3)
        await trial.under_way(30)
        _kill_workers(server, {trial.running()[0].pid}, trial)
        await trial.check()
    assert trial.recovered_in() < WORKER_DEATH


async def test_all_workers_killed_at_once(database: str, trial: Trial) -> None:
    async with running_server(database, workers=2, concurrency=20) as server:
        await server.wait_for_standby()
        await trial.add(MANY, 0.3)
        await trial.under_way(30)
        _kill_workers(server, {worker.pid for worker in server.workers()}, trial)
        await trial.check()


async def test_a_killed_supervisor(database: str, trial: Trial) -> None:
    async with (
        running_server(database, name="first", concurrency=20) as first,
        running_server(database, name="second", concurrency=20),
    ):
        await trial.add(MANY, 0.5)
        await trial.under_way(40)
        trial.strikes()
        first.signal(signal.SIGKILL)
        await trial.check()
    assert trial.recovered_in() < SERVER_DEATH


async def test_a_supervisor_killed_with_its_workers(database: str, trial: Trial) -> None:
    async with (
        running_server(database, name="first", concurrency=20) as first,
        running_server(database, name="second", concurrency=20),
    ):
        await trial.add(MANY, 0.5)
        await trial.under_way(40)
        workers = first.workers()
        trial.strikes()
        for pid in (first.pid, *(worker.pid for worker in workers)):
            os.kill(pid, signal.SIGKILL)
        await trial.check()
    assert trial.recovered_in() < SERVER_DEATH


@pytest.mark.timeout(AT_RANDOM + 120)
async def test_kills_at_random_moments(database: str, trial: Trial, tell: Callable[[str], None]) -> None:
    seed = os.environ.get("QUEUE_TEST_SEED") or str(random.randrange(10**6))
    tell(f"QUEUE_TEST_SEED={seed}")
    chance = random.Random(seed)
    end = time.monotonic() + AT_RANDOM
    async with running_server(database, name="steady", concurrency=20) as steady, trial.stream(every=0.01, seconds=0.3):
        while time.monotonic() < end:
            async with running_server(database, name="mortal", concurrency=20) as mortal:
                for _ in range(chance.randrange(4)):
                    await asyncio.sleep(chance.uniform(0, 1))
                    _kill_any(chance.choice([steady, mortal]).workers(), chance)
                await asyncio.sleep(chance.uniform(0, 1))
                trial.strikes()
                mortal.signal(signal.SIGKILL)
    async with running_server(database, name="last", concurrency=20):
        await trial.check(poisoned=True)


def _kill_workers(server: Server, pids: set[int], trial: Trial) -> None:
    victims = [worker for worker in server.workers() if worker.pid in pids]
    assert victims
    trial.strikes()
    for worker in victims:
        worker.kill()


def _kill_any(workers: list[psutil.Process], chance: random.Random) -> None:
    with suppress(psutil.NoSuchProcess, IndexError):
        chance.choice(workers).kill()
