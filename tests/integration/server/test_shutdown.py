"""A server that is told to leave: what runs may finish, nothing is lost, nothing counts as a failure."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from queued_tasks import QueuedTasks
from tests.apps import work
from tests.servers import Rows, Server, go, held_tasks, marks, running_server, started
from tests.waiting import wait_until

LIMIT = 30  # seconds


async def test_sigterm_lets_what_runs_finish_and_hands_back_the_rest(
    database: str, tasks: QueuedTasks, rows: Rows, tmp_path: Path
) -> None:
    refs = await held_tasks(tasks, tmp_path, 60)
    async with running_server(database, workers=2, concurrency=10) as server:
        await wait_until(lambda: started(tmp_path) == 20)
        server.signal(signal.SIGTERM)
        await wait_until(lambda: _is(server, "draining"))
        go(tmp_path)
        assert await server.exited() == 0
    assert (await rows.states(), await rows.leases()) == ({"done": 20, "enqueued": 40}, 0)
    async with running_server(database, workers=2):
        for ref in refs:
            await ref.wait(LIMIT)
    assert started(tmp_path) == 60
    assert await rows.value("select count(*) from queued_tasks.attempt") == 0


async def test_a_server_that_left_has_no_heartbeat(database: str, rows: Rows) -> None:
    async with running_server(database) as server:
        assert await server.stop() == 0
    assert await rows.value("select count(*) from queued_tasks.heartbeat") == 0
    assert await rows.value("select end_reason from queued_tasks.server") == "stopped"


async def test_ctrl_c_in_a_terminal_drains_as_sigterm_does(
    database: str, tasks: QueuedTasks, rows: Rows, tmp_path: Path
) -> None:
    await held_tasks(tasks, tmp_path, 3)
    await held_tasks(tasks, tmp_path, 1, work.hold_plainly)
    async with running_server(database) as server:
        await wait_until(lambda: started(tmp_path) == 4)
        server.interrupt_group()
        await wait_until(lambda: _is(server, "draining"))
        go(tmp_path)
        assert await server.exited() == 0
    assert await rows.states() == {"done": 4}


@pytest.mark.parametrize("function", [work.hold, work.hold_plainly], ids=["async", "sync"])
async def test_a_task_longer_than_the_grace_is_interrupted_and_runs_again_without_a_failure(
    database: str, tasks: QueuedTasks, rows: Rows, tmp_path: Path, function: object
) -> None:
    (ref,) = await held_tasks(tasks, tmp_path, 1, function)
    async with running_server(database, shutdown_grace=0.2) as server:
        await wait_until(lambda: started(tmp_path) == 1)
        assert await server.stop() == 0
    assert await rows.outcomes(ref.id) == ["interrupted"]
    go(tmp_path)
    async with running_server(database):
        await ref.wait(LIMIT)
    task = await tasks.get_task_by_id(ref.id)
    assert task is not None
    assert (task.attempt, task.failures) == (2, 0)


async def test_code_that_never_gives_way_can_not_hold_up_a_shutdown(
    database: str, tasks: QueuedTasks, rows: Rows, tmp_path: Path
) -> None:
    spinning = tasks.add_task(work.spin, str(tmp_path))
    await spinning
    async with running_server(database, shutdown_grace=0.2) as server:
        await wait_until(lambda: marks(tmp_path, "spinning"))
        assert await server.stop() == 0
    assert await rows.outcomes(spinning.id) == ["interrupted"]


async def test_a_second_sigterm_ends_at_once_and_the_next_server_takes_over(
    database: str, tasks: QueuedTasks, tmp_path: Path
) -> None:
    refs = await held_tasks(tasks, tmp_path, 3)
    async with running_server(database) as server:
        await wait_until(lambda: started(tmp_path) == 3)
        workers = server.workers()
        server.signal(signal.SIGTERM)
        await wait_until(lambda: _is(server, "draining"))
        server.signal(signal.SIGTERM)
        assert await server.exited() == 1
        await wait_until(lambda: not any(worker.is_running() for worker in workers))
    go(tmp_path)
    async with running_server(database):
        for ref in refs:
            await ref.wait(LIMIT)


async def test_sigterm_while_the_application_is_being_imported_ends_the_server(database: str, tmp_path: Path) -> None:
    (tmp_path / "endless.py").write_text("import time\ntime.sleep(600)\napp = 1\n")
    async with running_server(database, app="endless:app", app_dir=tmp_path, wait=False) as server:
        await wait_until(lambda: _is(server, "starting"))
        await server.wait_for_standby()
        assert await server.stop() == 0


async def _is(server: Server, state: str) -> bool:
    return await server.state() == state
