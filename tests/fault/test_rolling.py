"""One deploy after the other, under full load: every server that is told to leave does, and nobody notices."""

from __future__ import annotations

import os
from contextlib import AsyncExitStack

import pytest

from tests.fault.trial import Trial
from tests.servers import running_server

DEPLOYS = 50 if os.environ.get("QUEUE_TEST_LONG") else 10


@pytest.mark.timeout(60 + 12 * DEPLOYS)
@pytest.mark.parametrize(
    ("grace", "seconds", "ends"), [(30, 0.05, frozenset()), (0, 0.2, frozenset({"interrupted"}))], ids=["time", "none"]
)
async def test_rolling_deploys(database: str, trial: Trial, grace: float, seconds: float, ends: frozenset[str]) -> None:
    async with trial.stream(every=0.005, seconds=seconds):
        await trial.add(500, seconds)
        async with AsyncExitStack() as stack:
            old = await stack.enter_async_context(
                running_server(database, name="0", concurrency=20, shutdown_grace=grace)
            )
            for number in range(1, DEPLOYS + 1):
                new = await stack.enter_async_context(
                    running_server(database, name=str(number), concurrency=20, shutdown_grace=grace)
                )
                assert await old.stop() == 0
                old = new
            await trial.goes_on()
            assert await old.stop() == 0
    async with running_server(database, workers=2, concurrency=20):
        await trial.check(ends=ends)
