"""Whoever enqueues is killed at any moment, or loses the answer: what was acknowledged is there, and there once."""

from __future__ import annotations

import asyncio
import random
import sys
from uuid import UUID

from tests.fault.trial import Trial
from tests.proxy import proxied
from tests.servers import ROOT, Rows, running_server

KILLS = 8
LOST_ANSWERS = 20


async def test_an_enqueuer_killed_at_any_moment(database: str, trial: Trial, rows: Rows) -> None:
    async with running_server(database, workers=2, concurrency=20):
        for _ in range(KILLS):
            trial.added |= await _pour_until_killed(database, trial)
        await trial.check()
    assert await rows.value("select count(*) from queued_tasks.task") <= len(trial.added) + 5 * KILLS


async def test_a_commit_whose_answer_is_lost_enqueues_once(database: str, trial: Trial, rows: Rows) -> None:
    async with (
        running_server(database, workers=2, concurrency=20),
        proxied(database) as (proxy, dsn),
        trial.enqueuing_through(dsn),
    ):
        await trial.add(1)
        for _ in range(LOST_ANSWERS):
            proxy.cut_after(str(trial.ledger).encode())  # which is what the tasks are given
            await trial.add(5)
        assert proxy.cuts == LOST_ANSWERS
        await trial.check()
    assert await rows.value("select count(*) from queued_tasks.task") == len(trial.added) == 5 * LOST_ANSWERS + 1
    assert len(trial.runs()) == len(trial.added)


async def _pour_until_killed(database: str, trial: Trial) -> set[UUID]:
    """The tasks that a program has said to have added before it was killed."""
    program = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.apps.pour", database, str(trial.ledger)),
        cwd=ROOT,
        stdout=asyncio.subprocess.PIPE,
    )
    assert program.stdout
    assert await program.stdout.readline() == b"open\n"
    await asyncio.sleep(random.uniform(0, 0.3))
    program.kill()
    said, _ = await program.communicate()
    *lines, _ = said.decode().split("\n")  # the last one may be cut off
    return {UUID(id) for line in lines for id in line.split()}
