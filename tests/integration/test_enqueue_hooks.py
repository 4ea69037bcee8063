"""The hooks of whoever adds tasks, where they fail."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import pytest
from loguru import logger

from queued_tasks import QueuedTasks, TaskSpec, TaskState, on_post_create, on_pre_create
from queued_tasks.runtime import hooks
from queued_tasks.runtime.errors import InvalidTask, SerializationError
from queued_tasks.runtime.hooks import Hook, HookPoint, HookTask
from tests.databases import connected
from tests.waiting import wait_until

Hooked = Callable[[HookPoint, Hook], AbstractContextManager[None]]


def work(value: Any = None) -> None: ...


@pytest.fixture
def said() -> Iterator[list[str]]:
    """What is logged, as loguru shows it to who has configured nothing: with the values of variables."""
    lines: list[str] = []
    sink = logger.add(lines.append, diagnose=True, backtrace=True)
    yield lines
    logger.remove(sink)


@contextmanager
def hooked(point: HookPoint, hook: Hook) -> Iterator[None]:
    point(hook)
    try:
        yield
    finally:
        point.remove(hook)


async def _fail(task: HookTask) -> None:
    password = "hunter" + "2"
    raise ValueError(f"a password of {len(password)} characters")


async def test_an_error_of_a_post_create_hook_is_logged_on_the_task(tasks: QueuedTasks) -> None:
    with hooked(on_post_create, _fail):
        ref = tasks.add_task(work)
        await ref
    (line,) = await tasks.get_logs(ref.id)
    assert (line.level, line.attempt, line.message) == (
        "ERROR",
        0,
        "A hook of on_post_create failed; the task goes on.",
    )
    assert (line.exception or "").endswith("ValueError: a password of 7 characters\n")
    assert await ref.get_state() is TaskState.ENQUEUED


async def test_no_value_of_a_variable_gets_into_the_log(tasks: QueuedTasks, said: list[str]) -> None:
    with hooked(on_post_create, _fail):
        await tasks.add_task(work)
    with hooked(on_pre_create, _fail), pytest.raises(ValueError, match="7 characters"):
        await tasks.add_task(work)
    assert len(said) == 2
    assert "7 characters" in said[0]
    assert "hunter2" not in "".join(said)


async def test_an_error_about_a_task_that_is_not_committed_is_kept_nowhere(tasks: QueuedTasks, database: str) -> None:
    async with connected(database) as connection, connection.transaction():
        with hooked(on_post_create, _fail):
            await tasks.on(connection).add_task(work)
        assert await connection.fetchval("select count(*) from queued_tasks.log") == 0


async def test_a_context_that_can_not_be_kept_is_refused_at_the_call(tasks: QueuedTasks) -> None:
    def spoil(task: HookTask) -> None:
        task.context["at"] = object()

    with hooked(on_pre_create, spoil), pytest.raises(SerializationError):
        tasks.add_task(work)


async def test_of_a_batch_no_hook_sees_what_comes_behind_a_task_that_is_wrong(tasks: QueuedTasks) -> None:
    seen: list[Any] = []

    def note(task: HookTask) -> None:
        seen.extend(task.args)
        if task.args == [2]:
            raise PermissionError

    with hooked(on_pre_create, note):
        with pytest.raises(SerializationError):
            await tasks.add_tasks([TaskSpec(work, [value]) for value in (0, 1, object(), 2)])
        with pytest.raises(PermissionError):
            await tasks.add_tasks([TaskSpec(work, [value]) for value in (1, 2, object())])
    assert seen == [0, 1, 1, 2]


async def _hang(task: HookTask) -> None:
    if task.args == ["slow"]:
        await asyncio.get_running_loop().create_future()


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hooks, "LONGEST", 0.1)


@pytest.mark.usefixtures("impatient")
async def test_a_pre_create_hook_that_hangs_refuses_its_task_and_no_other(tasks: QueuedTasks) -> None:
    with hooked(on_pre_create, _hang):
        slow, other = tasks.add_task(work, "slow"), tasks.add_task(work, "other")
        await other
        with pytest.raises(InvalidTask, match=r"_hang, a hook of on_pre_create, has not answered within 0\.1 s"):
            await slow
    assert await tasks.get_task_by_id(slow.id) is None
    await slow  # tried again, without the hook
    assert await slow.get_state() is TaskState.ENQUEUED


@pytest.mark.usefixtures("impatient")
async def test_a_post_create_hook_that_hangs_has_failed(tasks: QueuedTasks) -> None:
    with hooked(on_post_create, _hang):
        ref = tasks.add_task(work, "slow")
        await ref
    (line,) = await tasks.get_logs(ref.id)
    assert "TimeoutError: a hook of on_post_create has not answered within 0.1 s" in (line.exception or "")


async def test_a_post_create_hook_that_takes_its_time_keeps_no_other_task_waiting(tasks: QueuedTasks) -> None:
    called, go_on = asyncio.Event(), asyncio.Event()

    async def wait(task: HookTask) -> None:
        called.set()
        await go_on.wait()

    with hooked(on_post_create, wait):
        tasks.add_task(work)
        await called.wait()
        second = tasks.add_task(work)
        await wait_until(lambda: tasks.get_task_by_id(second.id))  # nobody awaits itself: it goes with the turn
        go_on.set()


async def test_whoever_leaves_the_handle_waits_for_its_post_create_hooks(database: str) -> None:
    called, ended = asyncio.Event(), asyncio.Event()

    async def take_time(task: HookTask) -> None:
        called.set()
        await asyncio.sleep(0.1)
        ended.set()

    with hooked(on_post_create, take_time):
        async with QueuedTasks.connect(database) as tasks:
            tasks.add_task(work)
            await called.wait()
        assert ended.is_set()


@pytest.mark.usefixtures("impatient")
async def test_nobody_who_leaves_waits_for_hooks_that_hang_one_after_the_other(database: str) -> None:
    called: list[HookTask] = []

    async def hang(task: HookTask) -> None:
        called.append(task)
        await asyncio.get_running_loop().create_future()

    with hooked(on_post_create, hang):
        async with QueuedTasks.connect(database) as tasks:
            for _ in range(50):
                tasks.add_task(work)
            await wait_until(lambda: called)
        assert len(called) < 10
