"""Task functions that the tests of servers run. A `folder` is where a task and its test leave each other files."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import time
from datetime import timedelta
from pathlib import Path
from uuid import UUID, uuid4

import asyncpg

from queued_tasks import (
    Cancel,
    QueuedTasks,
    Retry,
    TaskFailed,
    get_context,
    get_current_task,
    getLogger,
    set_context,
    task,
)
from tests.waiting import wait_until

log = getLogger(__name__)


async def add(a: int, b: int) -> int:
    return a + b


def add_plainly(a: int, b: int) -> int:
    return a + b


async def pid() -> int:
    return os.getpid()


def pid_plainly() -> int:
    return os.getpid()


async def large(text: str) -> int:
    return len(text)


def mark(folder: str, what: str) -> None:
    Path(folder, f"{what}.{os.getpid()}.{uuid4().hex}").touch()


async def hold(folder: str) -> int:
    """Say that it has started, end once there is a file `go`; say that it has ended, however it does."""
    mark(folder, "started")
    try:
        await wait_until(Path(folder, "go").exists, deadline=300)
    finally:
        mark(folder, "ended")
    return os.getpid()


def hold_plainly(folder: str) -> int:
    mark(folder, "started")
    while not Path(folder, "go").exists():
        time.sleep(0.01)
    return os.getpid()


async def say(folder: str, what: str) -> None:
    mark(folder, what)


async def kill_worker(folder: str) -> None:
    mark(folder, "started")
    os.kill(os.getpid(), signal.SIGKILL)


def kill_worker_at_once() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


async def fail(text: str) -> None:
    raise ValueError(text)


@task(backoff=0.05)
async def fail_at_first(times: int) -> int:
    current = get_current_task()
    assert current is not None
    if current.attempt <= times:
        raise ConnectionError(f"attempt {current.attempt}")
    return current.attempt


@task(max_retries=0)
async def retry_twice() -> int:
    current = get_current_task()
    assert current is not None
    if current.attempt < 3:
        raise Retry(in_=timedelta(seconds=0.05), reason="not yet")
    return current.attempt


async def give_up() -> None:
    raise Cancel("no longer wanted")


@task(max_retries=0)
async def sleep(seconds: float) -> None:
    await asyncio.sleep(seconds)


@task(max_retries=0)
def spin_plainly() -> None:
    while True:
        pass


@task(max_retries=0)
async def spin(folder: str) -> None:
    mark(folder, "spinning")
    while True:
        pass


@task(max_retries=0)
async def swallow() -> None:
    while True:
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.sleep(60)


async def progress(folder: str) -> object:
    set_context("step.now", 1)
    await hold(folder)
    set_context("step.now", 2)
    return get_context("step.now")


async def chatter(lines: int) -> None:
    for number in range(lines):
        log.info("line %d", number)


async def log_at(levels: list[int]) -> str:
    for level in levels:
        log.log(level, "at %d", level)
    return "logged"


# ---- tasks that use the queue


async def add_child(folder: str, *, then_fail: bool = False) -> str:
    ref = QueuedTasks.current().add_task(say, folder, "child")
    await hold(folder)
    if then_fail:
        raise ValueError("after adding")
    return str(ref.id)


async def add_child_at_once(folder: str) -> str:
    id = await QueuedTasks.current().add_task(say, folder, "child")
    await hold(folder)
    return str(id)


async def ask_child(a: int, b: int) -> int:
    ref = QueuedTasks.current().add_task(add, a, b)
    return int(await ref.wait(30))


async def ask_failing_child() -> str:
    ref = QueuedTasks.current().add_task(fail, "the child's", max_retries=0)
    try:
        await ref.wait(30)
    except TaskFailed as error:
        return error.exception_message
    return "no error"


async def wait_for_hold(folder: str) -> int:
    ref = QueuedTasks.current().add_task(hold, folder)
    return int(await ref.wait(300))


async def retry_other(id: UUID) -> str:
    return str((await QueuedTasks.current().retry_task(id)).id)


async def cancel_other(id: UUID) -> bool:
    return await QueuedTasks.current().cancel_task(id)


async def list_others(limit: int) -> int:
    return len(await QueuedTasks.current().list_tasks(limit=limit))


async def ask_often(times: int) -> int:
    tasks = QueuedTasks.current()
    current = get_current_task()
    assert current is not None
    for _ in range(times):
        await tasks.get_task_by_id(current.id)
    return times


def add_child_plainly(folder: str) -> str:
    return str(QueuedTasks.current().add_task(say, folder, "child").id)


async def post_another(dsn: str) -> str:
    """Add a task in a transaction; its id."""
    connection = await asyncpg.connect(dsn)
    try:
        async with connection.transaction():
            id = await QueuedTasks.current().on(connection).add_task(add, 1, 2)
    finally:
        await connection.close()
    return str(id)


async def report(folder: str) -> str:
    set_context("step", 1)
    log.info("half")
    await wait_until(Path(folder, "go").exists, deadline=300)
    set_context("step", 2)
    log.info("whole")
    return "over"


async def follow_another() -> str:
    """Follow a task of one's own to its end; its last state."""
    ref = QueuedTasks.current().add_task(add, 1, 2)
    async for update in ref.watch():
        state = update.state
    return state
