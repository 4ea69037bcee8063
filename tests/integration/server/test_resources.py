"""The application around the tasks: its import, its lifespan, the hooks of its workers."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager
from pathlib import Path

import pytest

from queued_tasks import QueuedTasks
from tests.apps import resources, work
from tests.command import queued_tasks
from tests.servers import Server, running_server
from tests.waiting import wait_until

LIMIT = 30  # seconds
APP = "tests.apps.resources:app"


async def test_start_hooks_prepare_what_tasks_use(database: str, tasks: QueuedTasks) -> None:
    async with running_server(database, app=APP):
        assert await tasks.add_task(resources.number).wait(LIMIT) == 7
        assert await tasks.add_task(resources.number_plainly).wait(LIMIT) == 7


async def test_stop_hooks_and_the_lifespan_end_with_the_server(
    database: str, tasks: QueuedTasks, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRACES", str(tmp_path))
    async with running_server(database, app=APP, options=("--lifespan",)) as server:
        assert await tasks.add_task(resources.greeting).wait(LIMIT) == "hello"
        assert await server.stop() == 0
    assert _traces(tmp_path) == {"stopped with 7", "lifespan over"}


async def test_an_application_that_can_not_be_imported_blocks_the_server_until_it_is_repaired(
    database: str, tasks: QueuedTasks, tmp_path: Path
) -> None:
    (tmp_path / "broken.py").write_text("raise RuntimeError('no such thing')\n")
    ref = tasks.add_task(work.add, 1, 1)
    await ref
    async with _serving_from(tmp_path, "broken:app", database) as server:
        await _is_blocked(server, "no such thing")
        assert await server.probe("/readyz") == 503
        status = await queued_tasks("status", "--check", database=database)
        assert status.code == 3
        assert "no such thing" in status.out + status.err
        (tmp_path / "broken.py").write_text("app = 1  # repaired\n")
        assert await ref.wait(LIMIT) == 2
        assert await server.error() is None


async def test_a_start_hook_that_fails_blocks_the_server_until_it_does_not(
    database: str, tasks: QueuedTasks, tmp_path: Path
) -> None:
    (tmp_path / "hooked.py").write_text(
        "from pathlib import Path\n"
        "from queued_tasks import on_worker_start\n"
        "app = 1\n"
        "@on_worker_start\n"
        "async def start():\n"
        "    if not (Path(__file__).parent / 'fine').exists():\n"
        "        raise RuntimeError('not yet')\n"
    )
    ref = tasks.add_task(work.add, 1, 1)
    await ref
    async with _serving_from(tmp_path, "hooked:app", database) as server:
        await _is_blocked(server, "not yet")
        (tmp_path / "fine").touch()
        assert await ref.wait(LIMIT) == 2


async def test_a_blocked_server_leaves_in_order(database: str, tmp_path: Path) -> None:
    (tmp_path / "broken.py").write_text("raise RuntimeError('no such thing')\n")
    async with _serving_from(tmp_path, "broken:app", database) as server:
        await _is_blocked(server, "no such thing")
        assert await server.stop() == 0


def _serving_from(folder: Path, app: str, database: str) -> AbstractAsyncContextManager[Server]:
    return running_server(database, app=app, app_dir=folder, wait=False, health_port=0, allowed_modules="tests.apps")


def _traces(folder: Path) -> set[str]:
    return {trace.name for trace in folder.iterdir()}


async def _is_blocked(server: Server, why: str) -> None:
    async def is_blocked() -> bool:
        return await server.state() == "blocked" and why in (await server.error() or "")

    await wait_until(is_blocked)
