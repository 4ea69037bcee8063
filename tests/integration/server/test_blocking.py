"""Handles whose methods block: in `def` tasks, and in scripts without an event loop."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from queued_tasks import (
    DatabaseUnavailable,
    InvalidState,
    QueuedTasks,
    SyncQueuedTasks,
    SyncTaskRef,
    TaskCancelled,
    TaskRef,
    TaskSpec,
    TaskState,
)
from queued_tasks.runtime.hooks import HookTask, on_post_create
from tests.apps import inside, work
from tests.servers import ROOT, Rows, marks
from tests.waiting import wait_until

LIMIT = 30  # seconds


# ---- in def tasks


@pytest.mark.usefixtures("server")
async def test_a_def_task_waits_for_its_child(tasks: QueuedTasks) -> None:
    assert await tasks.add_task(inside.ask_child, 2, 3).wait(LIMIT) == [5, "done", "done", False]


@pytest.mark.usefixtures("server")
async def test_a_def_task_sees_the_error_of_its_child(tasks: QueuedTasks) -> None:
    assert await tasks.add_task(inside.ask_failing_child).wait(LIMIT) == "on purpose"


@pytest.mark.usefixtures("server")
async def test_a_def_task_that_waits_can_be_cancelled(tasks: QueuedTasks, tmp_path: Path) -> None:
    ref = tasks.add_task(inside.wait_in_vain, str(tmp_path))
    await ref
    await wait_until(lambda: marks(tmp_path, "waiting") == 1)
    assert await ref.cancel()
    with pytest.raises(TaskCancelled):
        await ref.wait(LIMIT)
    assert await tasks.add_task(work.add_plainly, 1, 2).wait(LIMIT) == 3


@pytest.mark.usefixtures("server")
async def test_a_def_task_ends_while_threads_that_it_left_behind_still_write(tasks: QueuedTasks) -> None:
    for _ in range(5):
        await tasks.add_task(inside.leave_threads_behind).wait(LIMIT)


@pytest.mark.usefixtures("server")
async def test_a_def_task_follows_a_chain(tasks: QueuedTasks) -> None:
    assert await tasks.add_task(inside.follow_chain).wait(LIMIT) == ["waiting", "done", [3]]


@pytest.mark.usefixtures("server")
async def test_current_is_what_fits_the_place(tasks: QueuedTasks) -> None:
    assert await tasks.add_task(inside.what_current_is).wait(LIMIT) == ["QueuedTasks", "SyncQueuedTasks"]
    assert await tasks.add_task(inside.what_current_is_plainly).wait(LIMIT) == "SyncQueuedTasks"


# ---- in scripts


async def in_thread(database: str, body: Callable[[SyncQueuedTasks], Any]) -> Any:
    """What `body` returns, called without an event loop."""

    def run() -> Any:
        with QueuedTasks.sync(database) as tasks:
            return body(tasks)

    return await asyncio.to_thread(run)


@pytest.mark.usefixtures("server")
async def test_a_script_adds_and_waits(database: str) -> None:
    assert await in_thread(database, lambda tasks: tasks.add_task(work.add, 1, 2).wait(LIMIT)) == 3


@pytest.mark.usefixtures("server")
async def test_a_script_follows_a_task_by_its_id(database: str) -> None:
    def body(tasks: SyncQueuedTasks) -> list[str]:
        ref = tasks.add_task(work.add, 1, 2)
        return [update.state.value for update in tasks.watch(str(ref.id))]

    assert (await in_thread(database, body))[-1] == "done"


async def test_a_script_adds_whole_graphs(database: str, rows: Rows) -> None:
    def body(tasks: SyncQueuedTasks) -> list[int]:
        spec = TaskSpec(work.add, (1, 2))
        refs = [tasks.chain(spec, spec), tasks.group(spec), tasks.chord([spec, spec], spec)]
        return [len(each) for each in refs]

    assert await in_thread(database, body) == [2, 1, 3]
    assert await rows.value("select count(*) from queued_tasks.dependency") == 3


def test_the_blocking_handle_has_what_the_other_one_has() -> None:
    for kind, twin in ((QueuedTasks, SyncQueuedTasks), (TaskRef, SyncTaskRef)):
        public, blocking = ({name for name in dir(each) if not name.startswith("_")} for each in (kind, twin))
        assert public - blocking <= {"connect", "sync", "add_task_async"}


async def test_what_was_added_is_written_when_it_leaves(database: str, rows: Rows) -> None:
    await in_thread(database, lambda tasks: [tasks.add_task(work.add, n, n) for n in range(100)])
    assert await rows.value("select count(*) from queued_tasks.task") == 100


async def test_every_verb_blocks_until_it_has_its_answer(database: str) -> None:
    def body(tasks: SyncQueuedTasks) -> list[object]:
        (ref,) = tasks.add_tasks([TaskSpec(work.add, (1, 2))])
        found = tasks.get_task_by_id(ref.id)
        said: list[object] = [ref.created, found.state if found else None, tasks.get_pending_tasks_count()]
        said += [tasks.cancel_task(ref.id), ref.get_state(), ref.cancel()]
        again = tasks.retry_task(str(ref.id))
        said += [again.name, len(tasks.list_tasks()), tasks.stop_task(again.id), tasks.get_logs(again.id)]
        tasks.add_task(work.add, 3, 4, parent=ref)
        tasks.flush()
        return [*said, tasks.get_pending_tasks_count()]

    assert await in_thread(database, body) == [
        *(True, TaskState.ENQUEUED, 1),
        *(True, TaskState.CANCELLED, False),
        *("add_retry", 2, False, []),
        1,
    ]


async def test_one_handle_serves_many_threads(database: str, rows: Rows) -> None:
    def body(tasks: SyncQueuedTasks) -> None:
        with ThreadPoolExecutor(8) as threads:
            refs = list(threads.map(lambda n: tasks.add_task(work.add, n, n), range(200)))
            assert len(set(threads.map(lambda ref: ref.get_task_id(), refs))) == 200

    await in_thread(database, body)
    assert await rows.value("select count(*) from queued_tasks.task") == 200


async def test_an_event_loop_is_never_blocked(database: str) -> None:
    def body(tasks: SyncQueuedTasks) -> None:
        async def carelessly() -> None:
            tasks.flush()

        asyncio.run(carelessly())

    with pytest.raises(InvalidState, match="event loop runs in it"):
        await in_thread(database, body)


async def test_a_script_that_is_interrupted_leaves_in_order(database: str, rows: Rows) -> None:
    script = (
        "import signal, os, threading\n"
        "from queued_tasks import QueuedTasks\n"
        "from tests.apps import work\n"
        f"with QueuedTasks.sync({database!r}) as tasks:\n"
        "    ref = tasks.add_task(work.add, 1, 2)\n"
        "    threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGINT)).start()\n"
        "    ref.wait()\n"
    )
    ran = await asyncio.to_thread(
        subprocess.run, [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, timeout=60
    )
    assert ran.stderr.rstrip().endswith("KeyboardInterrupt")
    assert await rows.value("select count(*) from queued_tasks.task") == 1


async def test_a_fork_is_told_to_open_its_own(database: str) -> None:
    script = (
        "import os, warnings\n"
        "from queued_tasks import QueuedTasks\n"
        "from tests.apps import work\n"
        f"with QueuedTasks.sync({database!r}) as tasks:\n"
        "    if os.fork() == 0:\n"
        "        try:\n"
        "            tasks.add_task(work.add, 1, 2)\n"
        "        except Exception as error:\n"
        "            print(error, flush=True)\n"
        "        os._exit(0)\n"
        "    os.wait()\n"
    )
    ran = await asyncio.to_thread(
        subprocess.run, [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, timeout=60
    )
    assert "open QueuedTasks.sync() after the fork" in ran.stdout


async def test_a_failing_connection_leaves_no_thread_behind() -> None:
    def run() -> None:
        with QueuedTasks.sync("postgresql://nobody@127.0.0.1:1/none"):
            pass

    with pytest.raises(DatabaseUnavailable, match="is the URL right"):
        await asyncio.to_thread(run)
    assert not [thread for thread in threading.enumerate() if thread.name == "queued-tasks"]


async def test_a_hook_that_writes_with_the_handle_that_calls_it_is_refused(database: str) -> None:
    handle: Any = None
    refused: list[str] = []

    def write_again(_: HookTask) -> None:
        if not refused:
            try:
                handle.add_task(work.add, 3, 4).get_task_id()
            except InvalidState as error:
                refused.append(str(error))

    def write() -> None:
        nonlocal handle
        with QueuedTasks.sync(database) as handle:
            handle.add_task(work.add, 1, 2).get_task_id()

    on_post_create(write_again)
    try:
        async with asyncio.timeout(LIMIT):
            await asyncio.to_thread(write)
    finally:
        on_post_create.remove(write_again)
    assert "an event loop runs in it" in refused[0]
