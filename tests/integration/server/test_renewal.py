"""Workers that have had their time: others take their place, and nothing is lost by that."""

from __future__ import annotations

import signal
from contextlib import AbstractAsyncContextManager
from pathlib import Path

import psutil
import pytest

from queued_tasks import QueuedTasks, TaskRef, WorkerDied
from tests.apps import growing, work
from tests.servers import Rows, Server, go, held_tasks, marks, running_server, started
from tests.waiting import wait_until

LIMIT = 60  # seconds
MEMORY = 150  # MiB: two workers of the tests, and more than one


@pytest.mark.parametrize("function", [work.pid, work.pid_plainly], ids=["async", "sync"])
async def test_a_worker_is_replaced_after_so_many_tasks(database: str, tasks: QueuedTasks, function: object) -> None:
    async with running_server(database, max_tasks_per_worker=5):
        seen: set[int] = set()

        async def third() -> bool:
            seen.add(await tasks.add_task(function).wait(LIMIT))  # type: ignore[arg-type]
            return len(seen) == 3

        await wait_until(third, deadline=LIMIT)


async def test_no_task_of_many_is_lost_or_interrupted_while_workers_are_replaced(
    database: str, tasks: QueuedTasks, rows: Rows
) -> None:
    async with running_server(database, workers=2, max_tasks_per_worker=50, concurrency=10) as server:
        for _ in range(3):
            refs = [tasks.add_task(work.sleep, 0.05) for _ in range(300)]
            for ref in refs:
                await ref.wait(LIMIT)
        assert server.said.count("is replaced: it has run") >= 2
    assert await rows.value("select count(*) from queued_tasks.attempt") == 0
    assert await rows.states() == {"done": 900}


async def test_a_worker_that_is_replaced_finishes_what_runs_and_takes_no_more(
    database: str, tasks: QueuedTasks, rows: Rows, tmp_path: Path
) -> None:
    async with running_server(database, max_tasks_per_worker=3) as server:
        held, old = await _held_in_one_that_is_replaced(tasks, tmp_path)
        assert psutil.pid_exists(old)
        go(tmp_path)
        assert await held.wait(LIMIT) == old
        await wait_until(lambda: not _works(server, old))
        await wait_until(lambda: "has left" in server.said)
    assert await rows.outcomes(held.id) == []


async def test_the_standby_takes_over_from_a_worker_that_is_replaced(
    database: str, tasks: QueuedTasks, tmp_path: Path
) -> None:
    async with _server_of(tmp_path, database, max_tasks_per_worker=1) as server:
        await wait_until(lambda: marks(tmp_path, "imported") == 2)
        both = {worker.pid for worker in server.workers()}
        old = await tasks.add_task(work.pid).wait(LIMIT)
        (standby,) = both - {old}
        seen = [old]

        async def replaced() -> bool:
            seen.append(await tasks.add_task(work.pid).wait(LIMIT))
            return bool(seen[-1] != old)

        await wait_until(replaced)
        assert seen[-1] == standby


@pytest.mark.parametrize("function", [growing.leak, growing.leak_plainly], ids=["async", "sync"])
async def test_a_worker_is_replaced_when_it_holds_too_much_memory(
    database: str, tasks: QueuedTasks, rows: Rows, function: object
) -> None:
    async with running_server(database, max_memory_per_worker=f"{MEMORY}MB") as server:
        ref = tasks.add_task(function, MEMORY)  # type: ignore[arg-type]
        old = await ref.wait(LIMIT)
        await wait_until(lambda: not _works(server, old))
        assert f"its limit is {MEMORY} MiB" in server.said
    assert await rows.outcomes(ref.id) == []


async def test_a_task_that_takes_far_too_much_memory_is_killed_and_fails_in_the_end(
    database: str, tasks: QueuedTasks, rows: Rows, tmp_path: Path
) -> None:
    async with running_server(database, max_memory_per_worker=MEMORY):
        ref = tasks.add_task(growing.leak_and_hold, 2 * MEMORY + 50, str(tmp_path))
        with pytest.raises(WorkerDied, match=f"its limit is {MEMORY} MiB"):
            await ref.wait(LIMIT)
    assert await rows.outcomes(ref.id) == ["crashed", "crashed"]


async def test_a_limit_below_what_a_worker_takes_at_first_is_not_applied(
    database: str, tasks: QueuedTasks, rows: Rows
) -> None:
    async with running_server(database, max_memory_per_worker="5MB") as server:
        await wait_until(lambda: "QUEUE_MAX_MEMORY_PER_WORKER (5 MiB) is not applied" in server.said)
        (first, second) = [await tasks.add_task(work.pid).wait(LIMIT) for _ in range(2)]
        assert first == second


# ---- faults


async def test_a_worker_that_is_killed_while_it_finishes_gives_its_tasks_back(
    database: str, tasks: QueuedTasks, rows: Rows, tmp_path: Path
) -> None:
    async with running_server(database, max_tasks_per_worker=2):
        held, old = await _held_in_one_that_is_replaced(tasks, tmp_path)
        psutil.Process(old).send_signal(signal.SIGKILL)
        await wait_until(lambda: started(tmp_path) == 2)
        go(tmp_path)
        assert await held.wait(LIMIT) != old
    assert await rows.outcomes(held.id) == ["crashed"]


async def test_sigterm_while_a_worker_finishes_lets_it_go_on_for_the_grace(
    database: str, tasks: QueuedTasks, rows: Rows, tmp_path: Path
) -> None:
    async with running_server(database, max_tasks_per_worker=2) as server:
        held, old = await _held_in_one_that_is_replaced(tasks, tmp_path)
        server.signal(signal.SIGTERM)
        await wait_until(lambda: "draining" in server.said)
        go(tmp_path)
        assert await server.exited() == 0
    assert await held.wait(LIMIT) == old


async def test_when_no_successor_can_start_a_worker_goes_on(database: str, tasks: QueuedTasks, tmp_path: Path) -> None:
    async with _server_of(tmp_path, database, max_tasks_per_worker=5) as server:
        await wait_until(lambda: marks(tmp_path, "imported") == 2)
        _app(tmp_path, "raise RuntimeError('no more')")

        async def can_not_replace() -> bool:
            await tasks.add_task(work.pid).wait(LIMIT)
            return server.said.count("is replaced") > 1 and "no more" in (await server.error() or "")

        await wait_until(can_not_replace, deadline=LIMIT)
        last = await tasks.add_task(work.pid).wait(LIMIT)
        assert await tasks.add_task(work.pid).wait(LIMIT) == last
        assert await server.state() == "running"
        _app(tmp_path)
        await wait_until(lambda: _ran_elsewhere(tasks, last), deadline=LIMIT)


def _app(folder: Path, line: str = "") -> None:
    """An application that leaves a mark for each process that has imported it."""
    (folder / "marking.py").write_text(
        f"import os\nfrom pathlib import Path\n{line}\napp = 1\n"
        "(Path(__file__).parent / f'imported.{os.getpid()}').touch()\n"
    )


def _server_of(folder: Path, database: str, **settings: object) -> AbstractAsyncContextManager[Server]:
    _app(folder)
    return running_server(
        database,
        app="marking:app",
        app_dir=folder,
        allowed_modules="tests.apps",
        **settings,  # type: ignore[arg-type]
    )


async def _held_in_one_that_is_replaced(tasks: QueuedTasks, folder: Path) -> tuple[TaskRef, int]:
    """A task in a worker that takes no more, and the id of the worker's process."""
    (held,) = await held_tasks(tasks, folder, 1)
    await wait_until(lambda: started(folder) == 1)
    old: int = await tasks.add_task(work.pid).wait(LIMIT)
    await wait_until(lambda: _ran_elsewhere(tasks, old))
    return held, old


async def _ran_elsewhere(tasks: QueuedTasks, pid: int) -> bool:
    return bool(await tasks.add_task(work.pid).wait(LIMIT) != pid)


def _works(server: Server, pid: int) -> bool:
    return any(worker.pid == pid for worker in server.workers())
