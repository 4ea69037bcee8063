"""Orders of the user's, and the ways to a transaction on them."""

from __future__ import annotations

from collections.abc import AsyncIterator

import asyncpg
import pytest

from tests.databases import connected
from tests.ways import Way, way


@pytest.fixture
async def rows(database: str) -> AsyncIterator[asyncpg.Connection]:
    async with connected(database) as connection:
        await connection.execute("create table orders (id integer)")
        yield connection


@pytest.fixture
async def open_way(database: str, kind: str, rows: asyncpg.Connection) -> AsyncIterator[Way]:
    async with way(kind, database) as opened:
        yield opened
