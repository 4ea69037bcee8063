"""Visitors of a web application that adds a task for each request."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from uuid import UUID

import httpx

from tests.fault.trial import Trial

SIDES = 4  # visitors at a time


@asynccontextmanager
async def visitors(url: str, trial: Trial, *, requests: int) -> AsyncIterator[None]:
    """So many requests in all; those that are answered with success are acknowledged. The block ends after the last."""
    numbers = iter(range(requests))

    async def post(client: httpx.AsyncClient) -> None:
        for _ in numbers:
            answer = await client.post("/work", params={"ledger": str(trial.ledger)})
            if answer.is_success:
                trial.added.add(UUID(answer.json()))

    async with httpx.AsyncClient(base_url=url, timeout=60) as client, asyncio.TaskGroup() as group:
        for _ in range(SIDES):
            group.create_task(post(client))
        yield
