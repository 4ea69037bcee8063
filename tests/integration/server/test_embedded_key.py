"""With nothing configured at all, tasks are signed: the embedded database has a key of its own."""

from __future__ import annotations

import asyncio
import stat
import sys
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.command import environment, queued_tasks
from tests.servers import ROOT, running_server
from tests.waiting import wait_until

SCRIPT = """
import asyncio
from queued_tasks import QueuedTasks

async def main():
    async with QueuedTasks.connect() as tasks:
        factor = 6
        multiplied = tasks.add_task(lambda x: x * factor, 7)
        print(multiplied.id, await multiplied.wait(60))

asyncio.run(main())
"""


@pytest.fixture
async def home() -> AsyncIterator[Path]:
    """A folder for the embedded server, removed once that has left it."""
    with tempfile.TemporaryDirectory(prefix="queued-tasks-") as folder:
        Path(folder).chmod(0o711)  # noqa: ASYNC240  # under root PostgreSQL runs as another user and must pass through
        home = Path(folder) / "data"
        yield home
        await wait_until(lambda: not any(home.rglob("postmaster.pid")))


async def test_a_closure_runs_can_be_retried_and_the_key_is_private(home: Path) -> None:
    async with running_server("", wait=False, data_dir=home) as server:
        script = await asyncio.create_subprocess_exec(
            *(sys.executable, "-c", SCRIPT),
            stdout=asyncio.subprocess.PIPE,
            cwd=ROOT,
            env=environment(None, QUEUE_DATA_DIR=str(home)),
        )
        said, _ = await script.communicate()
        id, result = said.decode().split()
        retried = await queued_tasks("retry", id, QUEUE_DATA_DIR=str(home))
        await server.stop()
    assert result == "42"
    assert retried.code == 0, retried
    assert stat.S_IMODE((home / "secret.key").stat().st_mode) == 0o600
