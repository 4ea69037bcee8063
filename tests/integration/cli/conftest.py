"""What the tests of the command line share: the rows that it shows."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tests.command import Rows, rows_in


@pytest.fixture
async def rows(database: str) -> AsyncIterator[Rows]:
    async with rows_in(database) as access:
        yield access
