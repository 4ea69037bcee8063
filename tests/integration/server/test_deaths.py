"""Processes that die: their tasks run again soon, others are left alone."""

from __future__ import annotations

import signal
import time
from pathlib import Path

import pytest

from queued_tasks import QueuedTasks, TaskSpec, WorkerDied
from tests.apps import work
from tests.servers import Rows, Server, go, held_tasks, marks, running_server, started
from tests.waiting import wait_until

LIMIT = 60  # seconds
WORKER_DEATH = 4 * 1.0  # seconds: four times what is promised
SERVER_DEATH = 4 * 5.0


@pytest.mark.parametrize("function", [work.hold, work.hold_plainly], ids=["async", "sync"])
async def test_tasks_of_a_killed_worker_run_again_and_others_are_left_alone(
    database: str, tasks: QueuedTasks, rows: Rows, tmp_path: Path, function: object
) -> None:
    async with running_server(database, workers=2, concurrency=1) as server:
        refs = await held_tasks(tasks, tmp_path, 2, function)
        await wait_until(lambda: started(tmp_path) == 2)
        victim = next(worker for worker in server.workers() if _runs_a_task(worker.pid, tmp_path))
        victim.kill()
        await wait_until(lambda: started(tmp_path) == 3, deadline=WORKER_DEATH)
        go(tmp_path)
        for ref in refs:
            await ref.wait(LIMIT)
    assert sorted([await rows.outcomes(ref.id) for ref in refs]) == [[], ["crashed"]]


async def test_a_standby_takes_the_place_of_a_killed_worker_before_its_own_successor_has_started(
    database: str, tasks: QueuedTasks
) -> None:
    async with running_server(database) as server:
        await server.wait_for_standby()
        first = await tasks.add_task(work.pid).wait(LIMIT)
        (standby,) = [worker.pid for worker in server.workers() if worker.pid != first]
        next(worker for worker in server.workers() if worker.pid == first).kill()
        assert await tasks.add_task(work.pid).wait(LIMIT) == standby


async def test_a_task_that_kills_its_worker_each_time_fails_at_its_third_death(
    database: str, tasks: QueuedTasks, rows: Rows, tmp_path: Path
) -> None:
    async with running_server(database):
        ref = tasks.add_task(work.kill_worker, str(tmp_path))
        with pytest.raises(WorkerDied, match="3 times"):
            await ref.wait(LIMIT)
    assert started(tmp_path) == 3
    assert await rows.outcomes(ref.id) == ["crashed", "crashed"]


async def test_neighbours_of_a_task_that_kills_its_worker_are_not_failed_for_it(
    database: str, tasks: QueuedTasks, tmp_path: Path
) -> None:
    neighbours = tmp_path / "neighbours"
    neighbours.mkdir()
    async with running_server(database):
        refs = await held_tasks(tasks, neighbours, 5)
        await wait_until(lambda: started(neighbours) == 5)
        killer = tasks.add_task(work.kill_worker, str(tmp_path))
        await killer
        await wait_until(lambda: started(tmp_path) == 2)
        go(neighbours)
        for ref in refs:
            await ref.wait(LIMIT)
        with pytest.raises(WorkerDied):
            await killer.wait(LIMIT)


async def test_plain_functions_that_ended_just_before_one_kills_their_worker_are_not_blamed(
    database: str, tasks: QueuedTasks, rows: Rows
) -> None:
    adds = [TaskSpec(work.add_plainly, (1, 1))] * 20
    async with running_server(database):
        refs = await tasks.add_tasks([*adds, TaskSpec(work.kill_worker_at_once), *adds])
        with pytest.raises(WorkerDied, match="3 times"):
            await refs[20].wait(LIMIT)
        others = refs[:20] + refs[21:]
        for ref in others:
            assert await ref.wait(LIMIT) == 2
    assert await rows.outcomes(refs[20].id) == ["crashed", "crashed"]
    assert {outcome for ref in others for outcome in await rows.outcomes(ref.id)} <= {"interrupted"}


async def test_the_workers_of_a_killed_server_die_with_it(database: str, tasks: QueuedTasks, tmp_path: Path) -> None:
    async with running_server(database, workers=2) as server:
        await tasks.add_task(work.add_plainly, 1, 1).wait(LIMIT)
        spinning = tasks.add_task(work.spin, str(tmp_path))
        await spinning
        await wait_until(lambda: marks(tmp_path, "spinning"))
        workers = server.workers()
        server.signal(signal.SIGKILL)
        assert await server.exited() == -signal.SIGKILL
        await wait_until(lambda: not any(worker.is_running() for worker in workers))


async def test_a_second_server_takes_over_from_a_killed_one(
    database: str, tasks: QueuedTasks, rows: Rows, tmp_path: Path
) -> None:
    async with running_server(database, name="first") as first:
        refs = await held_tasks(tasks, tmp_path, 5)
        await wait_until(lambda: started(tmp_path) == 5)
        async with running_server(database, name="second"):
            first.signal(signal.SIGKILL)
            await first.exited()
            await wait_until(lambda: started(tmp_path) == 10, deadline=SERVER_DEATH)
            go(tmp_path)
            for ref in refs:
                await ref.wait(LIMIT)
    assert [await rows.outcomes(ref.id) for ref in refs] == [["interrupted"]] * 5
    assert await rows.value("select end_reason from queued_tasks.server where name = 'first'") == "lost"


async def test_a_killed_server_that_is_started_again_takes_over_from_itself(
    database: str, tasks: QueuedTasks, tmp_path: Path
) -> None:
    async with running_server(database) as first:
        refs = await held_tasks(tasks, tmp_path, 5)
        await wait_until(lambda: started(tmp_path) == 5)
        first.signal(signal.SIGKILL)
        await first.exited()
    async with running_server(database):
        await wait_until(lambda: started(tmp_path) == 10, deadline=SERVER_DEATH)
        go(tmp_path)
        for ref in refs:
            await ref.wait(LIMIT)


async def test_a_server_whose_row_is_gone_drops_everything_and_starts_afresh(
    database: str, tasks: QueuedTasks, rows: Rows, tmp_path: Path
) -> None:
    async with running_server(database) as server:
        refs = await held_tasks(tasks, tmp_path, 3)
        await wait_until(lambda: started(tmp_path) == 3)
        workers = server.workers()
        await rows.value("delete from queued_tasks.heartbeat")
        await wait_until(lambda: not any(worker.is_running() for worker in workers))
        await server.wait_for_work()
        await wait_until(lambda: started(tmp_path) == 6, deadline=LIMIT)
        go(tmp_path)
        for ref in refs:
            await ref.wait(LIMIT)
        assert await rows.value("select count(*) from queued_tasks.server") == 2


async def test_workers_that_die_over_and_over_are_replaced_ever_more_slowly(database: str, tmp_path: Path) -> None:
    (tmp_path / "mortal.py").write_text(
        "import os, threading\n"
        "from queued_tasks import on_worker_start\n"
        "app = 1\n"
        "open(os.path.join(os.path.dirname(__file__), f'born.{os.getpid()}'), 'w')\n"
        "@on_worker_start\n"
        "async def die():\n"
        "    threading.Timer(0.05, os._exit, [9]).start()\n"
    )
    async with running_server(database, app="mortal:app", app_dir=tmp_path, wait=False) as server:
        await wait_until(lambda: _says(server, "die again and again"))
        born = marks(tmp_path, "born")
        then = time.monotonic()
        await wait_until(lambda: server.said.count("died") > 8)
        assert marks(tmp_path, "born") - born <= 2 + (time.monotonic() - then) / 0.25
        assert await server.stop() == 0


def _runs_a_task(pid: int, folder: Path) -> bool:
    return any(path.name.startswith(f"started.{pid}.") for path in folder.iterdir())


async def _says(server: Server, text: str) -> bool:
    return text in (await server.error() or "")
