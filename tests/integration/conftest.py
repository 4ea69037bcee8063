"""What tests against PostgreSQL share: the queue, as a script sees it, and its tables, seen from outside."""

from __future__ import annotations

from collections.abc import AsyncIterator

import asyncpg
import pytest

from queued_tasks import QueuedTasks
from tests.databases import connected


@pytest.fixture
async def tasks(database: str) -> AsyncIterator[QueuedTasks]:
    async with QueuedTasks.connect(database) as tasks:
        yield tasks


@pytest.fixture
async def rows(database: str) -> AsyncIterator[asyncpg.Connection]:
    async with connected(database) as connection:
        yield connection
