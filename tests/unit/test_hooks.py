"""Hooks: how they are registered, in which order they are called, what their errors do."""

from __future__ import annotations

from collections.abc import Iterator
from uuid import UUID

import pytest

from queued_tasks.runtime import hooks
from queued_tasks.runtime.errors import InvalidTask
from queued_tasks.runtime.hooks import HookPoint, HookTask
from queued_tasks.runtime.task import Executor, NewTask

TASK = NewTask(
    id=UUID(int=7),
    function="app.tasks:send",
    executor=Executor.ASYNC,
    args='["a@b.c"]',
    kwargs='{"copies": 2}',
    context='{"user": 1}',
)


@pytest.fixture
def point() -> HookPoint:
    return HookPoint("on_something")


@pytest.fixture
def called() -> Iterator[list[str]]:
    """What the pre-create hooks of a test did; they are forgotten after it."""
    calls: list[str] = []

    @hooks.on_pre_create
    async def later(task: HookTask) -> None:
        calls.append(f"async {task.name}")

    @hooks.on_pre_create
    def at_once(task: HookTask) -> None:
        calls.append(f"sync {task.name}")

    yield calls
    hooks.on_pre_create.remove(later)
    hooks.on_pre_create.remove(at_once)


def test_a_decorator_works_bare_and_called_and_returns_the_function(point: HookPoint) -> None:
    def bare() -> None: ...

    def called() -> None: ...

    assert point(bare) is bare
    assert point()(called) is called
    assert point.sync == [bare, called]


def test_a_function_registered_twice_is_called_once(point: HookPoint) -> None:
    def hook() -> None: ...

    point(hook)
    point(hook)
    assert point.sync == [hook]


def test_what_cannot_be_called_is_refused_with_the_name_of_the_decorator(point: HookPoint) -> None:
    with pytest.raises(InvalidTask, match="@on_something is for functions"):
        point("send")  # type: ignore[call-overload]  # the refusal is the point


def test_a_point_without_hooks_is_false(point: HookPoint) -> None:
    assert not point
    point(lambda: None)
    assert point


def test_hooks_see_the_task_decoded() -> None:
    task = HookTask.of(TASK)
    assert (task.name, task.args, task.kwargs, task.context) == ("send", ["a@b.c"], {"copies": 2}, {"user": 1})


def test_sync_pre_create_hooks_are_called_apart_from_the_async_ones(called: list[str]) -> None:
    hooks.refuse_or_change(HookTask.of(TASK))
    assert called == ["sync send"]


async def test_async_pre_create_hooks_are_called_at_the_write(called: list[str]) -> None:
    await hooks.refuse_or_change_async(HookTask.of(TASK))
    assert called == ["async send"]


async def test_every_hook_is_called_although_one_raises(point: HookPoint) -> None:
    calls: list[int] = []

    def broken(number: int) -> None:
        raise ValueError(number)

    async def fine(number: int) -> None:
        calls.append(number)

    point(broken)
    point(fine)
    errors = await hooks.run_all(point, 3)
    assert ([str(error) for error in errors], calls) == (["3"], [3])


def test_without_a_loop_only_sync_hooks_are_called(point: HookPoint) -> None:
    calls: list[object] = []

    async def never() -> None:
        calls.append("async")

    point(never)
    point(lambda: calls.append("sync"))
    assert hooks.run_all_sync(point) == []
    assert calls == ["sync"]


def test_the_state_of_the_worker_is_one_namespace() -> None:
    hooks.worker_state().pool = "open"
    assert hooks.worker_state().pool == "open"
    del hooks.worker_state().pool
