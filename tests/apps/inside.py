"""Task functions that ask, commit and add, for the tests of what a task can do."""

from __future__ import annotations

import asyncio
import os
import signal
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from contextvars import copy_context
from datetime import timedelta
from pathlib import Path
from threading import Event, Lock, Thread, current_thread
from typing import Any

from queued_tasks import (
    InvalidState,
    QueuedTasks,
    Retry,
    SyncQueuedTasks,
    TaskFailed,
    TaskSpec,
    enqueue_id_range_tasks,
    get_context,
    get_current_task,
    get_full_context,
    get_parent_results,
    getLogger,
    iter_with_cursor,
    on_post_create,
    on_pre_create,
    on_pre_run,
    set_context,
    task,
)
from queued_tasks.runtime.hooks import HookTask
from tests.apps import work
from tests.waiting import wait_until

log = getLogger(__name__)


async def give(value: Any) -> Any:
    return value


async def text_of(length: int) -> str:
    return "x" * length


async def fail() -> None:
    raise ValueError("on purpose")


async def fail_once() -> Any:
    if _is_first():
        set_context("failed", True)
        raise Retry(in_=0)
    return get_full_context()


async def add_quietly() -> None:
    QueuedTasks.current().add_task(work.add, 1, 2)


def add_plainly() -> None:
    QueuedTasks.current().add_task(work.add, 1, 2)


async def parents() -> Any:
    return await get_parent_results()


def parents_plainly() -> Any:
    return get_parent_results()


async def lengths_of_parents() -> Any:
    return [len(text) for text in await get_parent_results()]


async def count_parents_without_await() -> int:
    return len(get_parent_results())


def lengths_of_parents_plainly() -> Any:
    return [len(text) for text in get_parent_results()]


async def go_through(folder: str, count: int, die_at: int, commit_every: int) -> Any:
    """Note each id; the first attempt kills its process at one of them."""
    async for id in iter_with_cursor(range(1, count + 1), commit_every=commit_every):
        _note(folder, id)
        if id == die_at and _is_first():
            os.kill(os.getpid(), signal.SIGKILL)
    return get_context("cursor")


def go_through_plainly(folder: str, count: int, die_at: int, commit_every: int) -> Any:
    for id in iter_with_cursor(range(1, count + 1), commit_every=commit_every):
        _note(folder, id)
        if id == die_at and _is_first():
            os.kill(os.getpid(), signal.SIGKILL)
    return get_context("cursor")


async def go_through_until(folder: str, stop_at: int) -> Any:
    """Wait in the first attempt, at one id, for the end of the world."""
    async for id in iter_with_cursor(range(1, 11)):
        _note(folder, id)
        if id == stop_at and _is_first():
            _mark(folder, "waiting")
            await asyncio.sleep(300)
    return get_context("cursor")


def _note(folder: str, what: object, file: str = "ids") -> None:
    with Path(folder, file).open("a") as notes:
        notes.write(f"{what}\n")


def _mark(folder: str, what: str) -> None:
    Path(folder, f"{what}.{os.getpid()}").touch()


def _is_first() -> bool:
    current = get_current_task()
    return current is not None and current.attempt == 1


async def change_context(folder: str) -> Any:
    """Two changes that belong together, of which nobody is to see the first alone."""
    set_context("seen", 1)
    set_context("half", 1, auto_commit=False)
    _mark(folder, "half")
    await wait_until(Path(folder, "go").exists, deadline=300)
    set_context("whole", 1)
    await wait_until(Path(folder, "end").exists, deadline=300)
    return get_full_context()


def churn(count: int, threads: int) -> None:
    """Raise one number from many threads, which commit in between."""
    turn = Lock()

    def climb(thread: int) -> None:
        for _ in iter_with_cursor(range(count), key=f"thread {thread}", commit_every=7):
            with turn:
                set_context("number", get_context("number", 0) + 1, auto_commit=thread % 2 == 0)

    with ThreadPoolExecutor(threads) as pool:
        for future in [pool.submit(copy_context().run, climb, thread) for thread in range(threads)]:
            future.result()


@task(executor="thread")
def churn_on_thread(count: int, threads: int) -> None:
    churn(count, threads)


def keep_until_the_end() -> None:
    set_context("kept", 1, auto_commit=False)


def ask_child(a: int, b: int) -> Any:
    """Add, wait, look, all on a thread that blocks."""
    tasks = SyncQueuedTasks.current()
    ref = tasks.add_task(work.add, a, b)
    result = ref.wait(30)
    found = tasks.get_task_by_id(ref.id)
    return [result, found.state if found else None, ref.get_state(), tasks.cancel_task(ref.id)]


def follow_chain() -> list[Any]:
    """Add a chain and follow its last task, on a thread that blocks."""
    refs = SyncQueuedTasks.current().chain(TaskSpec(work.add, (1, 2)), TaskSpec(parents))
    states = [update.state.value for update in refs[-1].watch()]
    return [states[0], states[-1], refs[-1].wait(30)]


def ask_failing_child() -> str:
    try:
        SyncQueuedTasks.current().add_task(fail, max_retries=0).wait(30)
    except TaskFailed as error:
        return error.exception_message
    return ""


def wait_in_vain(folder: str) -> None:
    ref = SyncQueuedTasks.current().add_task(work.add, 1, 2, run_at=timedelta(days=1))
    _mark(folder, "waiting")
    ref.wait()


def leave_threads_behind() -> None:
    """Return while others still add and write for this task, which they may until it has ended."""
    tasks, written = SyncQueuedTasks.current(), Event()

    def write() -> None:
        with suppress(InvalidState):
            while True:
                tasks.add_task(work.add, 1, 2)
                tasks.flush()
                written.set()

    for _ in range(4):
        Thread(target=copy_context().run, args=(write,), daemon=True).start()
    written.wait()


def add_ranges(folder: str) -> int:
    tasks = SyncQueuedTasks.current()
    return len(enqueue_id_range_tasks(note_range, range(1, 11), chunk_size=4, tasks=tasks, folder=folder))


async def add_ranges_twice(folder: str, auto_remove: bool) -> int:
    """Both attempts add the same, the second one when all of it has ended."""
    refs = await enqueue_id_range_tasks(note_range, range(1, 11), chunk_size=4, auto_remove=auto_remove, folder=folder)
    if _is_first():
        for ref in refs:
            await ref.wait(30)
        os.kill(os.getpid(), signal.SIGKILL)
    return len(refs)


async def add_each(folder: str, count: int, die_at: int) -> None:
    """Add a task for each id; the first attempt kills its process at one of them, the second goes on there."""
    async for id in iter_with_cursor(range(1, count + 1)):
        await QueuedTasks.current().add_task(note_range, id, id, folder)
        if id == die_at and _is_first():
            os.kill(os.getpid(), signal.SIGKILL)


def add_each_plainly(folder: str, count: int, die_at: int) -> None:
    for id in iter_with_cursor(range(1, count + 1)):
        SyncQueuedTasks.current().add_task(note_range, id, id, folder).get_task_id()
        if id == die_at and _is_first():
            os.kill(os.getpid(), signal.SIGKILL)


async def add_and_say(folder: str) -> list[bool | None]:
    """Whether each of three children was made; the first attempt kills its process behind the second one."""
    said = []
    for id in (1, 2, 3):
        ref = QueuedTasks.current().add_task(note_range, id, id, folder, auto_remove=id == 1)
        await ref
        said.append(ref.created)
        assert (await QueuedTasks.current().add_task_async(note_range, id, id, folder, name="again")).state
        if id == 2 and _is_first():
            os.kill(os.getpid(), signal.SIGKILL)
    return said


async def note_range(min_id: int, max_id: int, folder: str) -> None:
    _note(folder, f"{min_id}-{max_id}", "ranges")


async def what_current_is() -> list[str]:
    def name() -> str:
        return type(QueuedTasks.current()).__name__

    return [name(), await asyncio.to_thread(name)]


def what_current_is_plainly() -> str:
    return type(QueuedTasks.current()).__name__


async def add_local(factor: int) -> Any:
    """A task of a closure, from inside a task."""

    async def multiply(x: int) -> int:
        return x * factor

    return await QueuedTasks.current().add_task(multiply, 7).wait(30)


def soon() -> timedelta:
    return timedelta(seconds=0.5)


def add_and_flush() -> None:
    tasks = SyncQueuedTasks.current()
    tasks.add_task(work.add, 1, 2)
    tasks.flush()


if os.environ.get("TEST_HOOKS"):

    @on_pre_create
    async def say_where(added: HookTask) -> None:
        await asyncio.sleep(0)
        added.context["thread"] = current_thread().name

    @on_post_create
    def say_that_it_is_added(added: HookTask) -> None:
        log.info("added %s with %s", added.name, added.context)

    @on_pre_run
    def say_place(running: HookTask) -> None:
        running.context["place"] = [running.channel, running.priority]
