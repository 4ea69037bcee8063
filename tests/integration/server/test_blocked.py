"""A task that blocks the event loop of its worker: it is found out, and its neighbours don't pay for it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from queued_tasks import QueuedTasks, TaskCancelled, TaskTimeout
from tests.apps import blockers, work
from tests.servers import Rows, Server, go, marks, running_server
from tests.waiting import wait_until

LIMIT = 60  # seconds
BLOCKERS = [work.spin, blockers.spin_in_child, blockers.count_for_ages]


@pytest.mark.parametrize("function", BLOCKERS, ids=lambda function: function.__name__)
async def test_the_task_that_blocks_times_out_and_neighbours_past_their_own_deadline_do_not(
    server: Server, tasks: QueuedTasks, rows: Rows, tmp_path: Path, function: object
) -> None:
    neighbours = [tasks.add_task(blockers.pause, str(tmp_path), 1, timeout=3) for _ in range(3)]
    await wait_until(lambda: marks(tmp_path, "pausing") == 3)
    blocker = tasks.add_task(function, str(tmp_path), timeout=4)  # type: ignore[arg-type]
    with pytest.raises(TaskTimeout):
        await blocker.wait(LIMIT)
    for neighbour in neighbours:
        await neighbour.wait(LIMIT)
        assert await rows.outcomes(neighbour.id) == ["interrupted"]


async def test_the_traceback_of_a_task_that_blocked_shows_where(
    server: Server, tasks: QueuedTasks, tmp_path: Path
) -> None:
    with pytest.raises(TaskTimeout) as raised:
        await tasks.add_task(blockers.count_for_ages, str(tmp_path), timeout=0.5).wait(LIMIT)
    last = (raised.value.exception_traceback or "").splitlines()[-1]
    assert "blockers.py" in last
    assert last.endswith("in count_for_ages")


async def test_a_task_that_blocks_for_longer_than_its_neighbours_may_run_gets_a_process_of_its_own(
    server: Server, tasks: QueuedTasks, rows: Rows, tmp_path: Path
) -> None:
    neighbour = tasks.add_task(blockers.pause, str(tmp_path), 1, timeout=3)
    await wait_until(lambda: marks(tmp_path, "pausing"))
    blocker = tasks.add_task(blockers.block, str(tmp_path), 12)
    await wait_until(lambda: marks(tmp_path, "blocking") == 2)
    shared = await neighbour.wait(LIMIT)
    assert await tasks.add_task(work.pid).wait(LIMIT) == shared
    assert await blocker.wait(LIMIT) != shared
    assert await rows.outcomes(neighbour.id) == ["interrupted"]
    assert await rows.outcomes(blocker.id) == ["blocked"]


async def test_when_nobody_can_say_who_blocks_what_is_overdue_runs_again_alone(
    server: Server, tasks: QueuedTasks, rows: Rows, tmp_path: Path
) -> None:
    neighbours = [tasks.add_task(blockers.pause, str(tmp_path), 1, timeout=3) for _ in range(2)]
    await wait_until(lambda: marks(tmp_path, "pausing") == 2)
    blocker = tasks.add_task(blockers.count_in_child, str(tmp_path), timeout=3)
    for neighbour in neighbours:
        await neighbour.wait(LIMIT)
        assert await rows.outcomes(neighbour.id) == ["blocked"]
    with pytest.raises(TaskTimeout):
        await blocker.wait(LIMIT)
    assert set(await rows.outcomes(blocker.id)) <= {"blocked", "interrupted"}


async def test_a_task_that_freezes_its_process_each_time_fails_in_the_end(
    server: Server, tasks: QueuedTasks, rows: Rows, tmp_path: Path
) -> None:
    ref = tasks.add_task(blockers.freeze, str(tmp_path), timeout=0.5)
    with pytest.raises(TaskTimeout):
        await ref.wait(LIMIT)
    assert await rows.outcomes(ref.id) == ["blocked"]


async def test_what_is_overdue_because_another_one_blocked_gets_its_time_back(
    server: Server, tasks: QueuedTasks, rows: Rows, tmp_path: Path
) -> None:
    neighbour = tasks.add_task(blockers.pause, str(tmp_path), 1, timeout=2)
    await wait_until(lambda: marks(tmp_path, "pausing"))
    await tasks.add_task(blockers.block, str(tmp_path), 3.5).wait(LIMIT)
    await neighbour.wait(LIMIT)
    assert await rows.outcomes(neighbour.id) == []


async def test_a_task_that_blocks_can_be_cancelled(
    server: Server, tasks: QueuedTasks, rows: Rows, tmp_path: Path
) -> None:
    neighbour = tasks.add_task(work.hold, str(tmp_path))
    blocker = tasks.add_task(work.spin, str(tmp_path))
    await wait_until(lambda: marks(tmp_path, "spinning"))
    assert await blocker.cancel()
    with pytest.raises(TaskCancelled):
        await blocker.wait(LIMIT)
    go(tmp_path)
    await neighbour.wait(LIMIT)
    assert await rows.outcomes(neighbour.id) == ["interrupted"]


async def test_a_server_whose_only_worker_is_blocked_says_so_and_names_the_function(
    database: str, tasks: QueuedTasks, tmp_path: Path
) -> None:
    async with running_server(database, health_port=0) as server:
        ref = tasks.add_task(blockers.block_until_go, str(tmp_path))
        await wait_until(lambda: _is(server, "blocked"))
        assert "in block_until_go" in (await server.error() or "")
        assert await server.probe("/readyz") == 503
        go(tmp_path)
        await ref.wait(LIMIT)
        await wait_until(lambda: _is(server, "running"))
        assert await server.error() is None


async def test_a_server_with_another_worker_is_running_and_says_which_one_is_blocked(
    database: str, tasks: QueuedTasks, tmp_path: Path
) -> None:
    async with running_server(database, workers=2) as server:
        ref = tasks.add_task(blockers.block_until_go, str(tmp_path))
        await wait_until(lambda: _says(server, "block_until_go"))
        assert await server.state() == "running"
        go(tmp_path)
        assert await tasks.add_task(work.pid).wait(LIMIT) != os.getpid()
        await ref.wait(LIMIT)


async def _is(server: Server, state: str) -> bool:
    return await server.state() == state


async def _says(server: Server, text: str) -> bool:
    return text in (await server.error() or "")
