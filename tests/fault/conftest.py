"""What trials by fault share."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from queued_tasks import QueuedTasks
from tests.fault.trial import Trial
from tests.servers import Rows, rows_of


@pytest.fixture
def tell(request: pytest.FixtureRequest, record_property: Callable[[str, object], None]) -> Callable[[str], None]:
    """Say something that is shown at the end of the run, beside the name of the test."""

    def tell(text: str) -> None:
        record_property("told", f"{request.node.name}: {text}")

    return tell


@pytest.fixture
async def tasks(database: str) -> AsyncIterator[QueuedTasks]:
    """The queue, as a script sees it."""
    async with QueuedTasks.connect(database) as tasks:
        yield tasks


@pytest.fixture
async def rows(database: str) -> AsyncIterator[Rows]:
    """The tables of the queue."""
    async with rows_of(database) as rows:
        yield rows


@pytest.fixture
def trial(tasks: QueuedTasks, database: str, tmp_path: Path, tell: Callable[[str], None]) -> Trial:
    return Trial(tasks, database, tmp_path, tell)
