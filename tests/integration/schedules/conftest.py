"""A database with schedules that have been known for two days."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from queued_tasks.runtime.store.link import Link
from tests.databases import connected
from tests.scheduled import HOURLY, MINUTELY, Cluster


@pytest.fixture
async def cluster(database: str) -> AsyncIterator[Cluster]:
    link = Link(database, "queued_tasks", name="test")
    async with connected(database) as connection:
        yield Cluster(database, link, connection, await connection.fetchval("select now()"))
    await link.close()


@pytest.fixture
async def hourly(cluster: Cluster) -> Cluster:
    await cluster.declare(HOURLY)
    return cluster


@pytest.fixture
async def minutely(cluster: Cluster) -> Cluster:
    await cluster.declare(MINUTELY)
    return cluster
