"""One deploy after the other on two hosts, under full load: every server that is told to leave does, nobody notices."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack

import pytest

from tests.fault.trial import Trial
from tests.servers import running_server

HOSTS = ("a", "b")


@pytest.mark.timeout(900)
@pytest.mark.parametrize(
    ("deploys", "grace", "seconds", "ends"),
    [(50, 30, 0.05, frozenset()), (10, 0, 0.2, frozenset({"interrupted"}))],
    ids=["time", "none"],
)
async def test_rolling_deploys(
    database: str, trial: Trial, deploys: int, grace: float, seconds: float, ends: frozenset[str]
) -> None:
    async def deploy_on(host: str) -> None:
        async with AsyncExitStack() as stack:
            leaving = None
            for number in range(deploys // len(HOSTS)):
                server = running_server(database, name=f"{host}-{number}", concurrency=20, shutdown_grace=grace)
                coming = await stack.enter_async_context(server)
                assert leaving is None or await leaving.stop() == 0
                leaving = coming
            await trial.goes_on()
            assert leaving is not None
            assert await leaving.stop() == 0

    async with trial.stream(every=0.005, seconds=seconds):
        await trial.add(500, seconds)
        async with asyncio.TaskGroup() as group:
            for host in HOSTS:
                group.create_task(deploy_on(host))
    async with running_server(database, workers=2, concurrency=20):
        await trial.check(ends=ends)
