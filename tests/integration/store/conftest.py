"""A store over a fresh database."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import pytest

from tests.store import Store


@pytest.fixture
async def store(database: str) -> AsyncIterator[Store]:
    """The store over a session of its own; sessions made from it are closed with it."""
    async with AsyncExitStack() as stack:
        yield await Store.open(database, stack)
