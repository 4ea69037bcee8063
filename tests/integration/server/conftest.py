"""What the tests of servers share: a server, and the rows behind it."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tests.servers import Rows, Server, rows_of, running_server


@pytest.fixture
async def server(database: str) -> AsyncIterator[Server]:
    """A server with one worker."""
    async with running_server(database) as server:
        yield server


@pytest.fixture
async def rows(database: str) -> AsyncIterator[Rows]:
    """The tables of the queue."""
    async with rows_of(database) as rows:
        yield rows
