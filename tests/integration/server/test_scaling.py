"""The number of workers follows the work, between its limits."""

from __future__ import annotations

import json
from pathlib import Path

import psutil
import pytest

from queued_tasks import QueuedTasks
from tests.apps import blockers, work
from tests.command import queued_tasks
from tests.servers import STANDBY, Rows, Server, go, held_tasks, marks, running_server, started
from tests.waiting import wait_until

LIMIT = 60  # seconds


async def test_a_server_starts_with_as_few_workers_as_it_may_have(database: str) -> None:
    async with running_server(database, workers=None, max_workers=4) as server:
        await wait_until(lambda: _is_settled(server, 1))


@pytest.mark.parametrize(("function", "kind", "left"), [(work.hold, "async", 1), (work.hold_plainly, "sync", 0)])
async def test_workers_come_while_tasks_wait_and_go_when_they_have_been_idle(
    database: str, tasks: QueuedTasks, rows: Rows, tmp_path: Path, function: object, kind: str, left: int
) -> None:
    async with running_server(database, workers=None, max_workers=2, concurrency=1, worker_idle_timeout=1) as server:
        refs = await held_tasks(tasks, tmp_path, 2, function)
        await wait_until(lambda: started(tmp_path) == 2)
        await wait_until(lambda: _serves(server, kind, 2))
        go(tmp_path)
        for ref in refs:
            await ref.wait(LIMIT)
        await wait_until(lambda: _serves(server, kind, left))
        assert await tasks.add_task(function, str(tmp_path)).wait(LIMIT)  # type: ignore[arg-type]
    assert await rows.value("select count(*) from queued_tasks.attempt") == 0


async def test_who_asks_for_so_many_workers_keeps_them(database: str) -> None:
    async with running_server(database, workers=2, worker_idle_timeout=0.2) as server:
        await wait_until(lambda: _is_settled(server, 2))
        beat = await _beat(server)
        await wait_until(lambda: _has_beaten_since(server, beat))
        assert await _is_settled(server, 2)


async def test_a_minimum_above_the_maximum_is_the_maximum(database: str) -> None:
    async with running_server(database, workers=1, min_workers=4) as server:
        await wait_until(lambda: _is_settled(server, 1))


async def test_the_heartbeat_tells_how_many_there_are_of_each_kind(
    database: str, tasks: QueuedTasks, tmp_path: Path
) -> None:
    async with running_server(database, workers=2, concurrency=3):
        await held_tasks(tasks, tmp_path, 1, work.hold_plainly)
        await wait_until(lambda: started(tmp_path))

        async def is_told() -> bool:
            (row,) = (await queued_tasks("servers", "--json", database=database)).json
            return (row["workers"], row["slots"], row["busy"]) == (3, 7, 1)

        await wait_until(is_told)
        go(tmp_path)


async def test_a_worker_that_is_blocked_is_given_nothing_and_another_one_comes(
    database: str, tasks: QueuedTasks, tmp_path: Path
) -> None:
    async with running_server(database, workers=None, max_workers=2, concurrency=10):
        blocking = tasks.add_task(blockers.block_until_go, str(tmp_path))
        await wait_until(lambda: marks(tmp_path, "blocking"))
        await held_tasks(tasks, tmp_path, 9)
        more = [tasks.add_task(work.add, 1, 1) for _ in range(30)]
        for ref in more[10:]:
            await ref.wait(LIMIT)
        go(tmp_path)
        await blocking.wait(LIMIT)


# ---- faults


async def test_a_killed_standby_is_replaced(database: str, tasks: QueuedTasks) -> None:
    async with running_server(database) as server:
        await server.wait_for_standby()
        busy = await tasks.add_task(work.pid).wait(LIMIT)
        (standby,) = [worker for worker in server.workers() if worker.pid != busy]
        standby.kill()
        await wait_until(lambda: not standby.is_running())
        await server.wait_for_standby()
        assert await tasks.add_task(work.pid).wait(LIMIT) == busy
        await wait_until(lambda: _is_without_error(server))


async def test_workers_that_can_not_start_leave_the_others_at_work(
    database: str, tasks: QueuedTasks, tmp_path: Path
) -> None:
    app = tmp_path / "fickle.py"
    app.write_text("app = 1\n")
    async with running_server(
        database,
        app="fickle:app",
        app_dir=tmp_path,
        workers=None,
        max_workers=4,
        concurrency=1,
        allowed_modules="tests.apps",
    ) as server:
        await server.wait_for_standby()
        app.write_text("raise RuntimeError('no more')\n")
        refs = await held_tasks(tasks, tmp_path, 8)
        await wait_until(lambda: _says(server, "no more"))
        assert await server.state() == "running"
        app.write_text("app = 1  # repaired\n")
        await wait_until(lambda: started(tmp_path) == 4, deadline=LIMIT)
        go(tmp_path)
        for ref in refs:
            await ref.wait(LIMIT)
        await wait_until(lambda: _is_without_error(server))


async def test_a_worker_that_is_killed_while_it_leaves_is_missed_by_nobody(
    database: str, tasks: QueuedTasks, rows: Rows, tmp_path: Path
) -> None:
    (tmp_path / "slow.py").write_text(
        "import asyncio, os\n"
        "from pathlib import Path\n"
        "from queued_tasks import on_worker_stop\n"
        "app = 1\n"
        "@on_worker_stop\n"
        "async def stop():\n"
        "    (Path(__file__).parent / f'stopping.{os.getpid()}').touch()\n"
        "    await asyncio.sleep(600)\n"
    )
    async with running_server(
        database,
        app="slow:app",
        app_dir=tmp_path,
        workers=2,
        min_workers=1,
        worker_idle_timeout=0.5,
        concurrency=1,
        allowed_modules="tests.apps",
    ) as server:
        refs = await held_tasks(tasks, tmp_path, 2)
        await wait_until(lambda: started(tmp_path) == 2)
        go(tmp_path)
        pids = {await ref.wait(LIMIT) for ref in refs}
        await wait_until(lambda: marks(tmp_path, "stopping") == 1)
        leaving = next(pid for pid in pids if _has_mark(tmp_path, f"stopping.{pid}"))
        psutil.Process(leaving).kill()
        await wait_until(lambda: "died (signal 9)" in server.said)
        assert {await tasks.add_task(work.pid).wait(LIMIT)} == pids - {leaving}
        await wait_until(lambda: _is_settled(server, 1))
    assert await rows.value("select count(*) from queued_tasks.attempt") == 0


def _has_mark(folder: Path, name: str) -> bool:
    return (folder / name).exists()


async def _serves(server: Server, kind: str, workers: int) -> bool:
    """Whether so many workers of a kind take tasks, by the last beat."""
    row = await server.heartbeat()
    return row is not None and json.loads(row["details"])["kinds"].get(kind, {}).get("workers") == workers


async def _is_settled(server: Server, workers: int) -> bool:
    row = await server.heartbeat()
    return row is not None and row["workers"] == workers and len(server.workers()) == workers + STANDBY


async def _beat(server: Server) -> object:
    row = await server.heartbeat()
    return row and row["beat_at"]


async def _has_beaten_since(server: Server, beat: object) -> bool:
    return await _beat(server) != beat


async def _says(server: Server, text: str) -> bool:
    return text in (await server.error() or "")


async def _is_without_error(server: Server) -> bool:
    return await server.error() is None
