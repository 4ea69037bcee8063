"""The queue inside a task, whose threads ask for it all at once: they get the same, and each task an id of its own."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from datetime import UTC, datetime
from threading import Barrier
from typing import Any, TypeVar
from uuid import UUID

import pytest
from msgspec.structs import replace

from queued_tasks.runtime import wire
from queued_tasks.runtime.context import get_full_context, set_context
from queued_tasks.runtime.current import Running, Workplace, running_here
from queued_tasks.runtime.local import dump
from queued_tasks.runtime.sync_client import SyncQueuedTasks
from queued_tasks.runtime.task import Executor, NewTask

T = TypeVar("T")

THREADS = 4
TASK = NewTask(id=UUID(int=7), function="app:load", executor=Executor.ASYNC, args="[1]")


@pytest.fixture(autouse=True)
def hurried() -> Iterator[None]:
    """Threads that take turns a thousand times as often as they do by default."""
    interval = sys.getswitchinterval()
    sys.setswitchinterval(5e-6)
    yield
    sys.setswitchinterval(interval)


def at_once(call: Callable[[int], T]) -> list[T]:
    """What `call` gives to each of several threads of one new attempt, which begin in the same moment."""
    row = wire.Attempt(1, UUID(int=5).bytes, 2, "import", "app:load", 0, "[]", None, None, None, 0, 0, 3)
    token = running_here.set(Running(row, Workplace(lambda _: None, object(), block=_blocks)))
    begin = Barrier(THREADS)

    def calling(number: int) -> T:
        begin.wait()
        return call(number)

    try:
        with ThreadPoolExecutor(THREADS) as pool:
            return [each.result() for each in [pool.submit(copy_context().run, calling, n) for n in range(THREADS)]]
    finally:
        running_here.reset(token)


def _blocks(work: Any, *, own_code: bool = False) -> Any:
    raise AssertionError(f"nothing is to be awaited here: {work}, {own_code}")


def test_tasks_that_threads_add_at_once_have_ids_of_their_own() -> None:
    def ids(_: int) -> list[UUID]:
        derive = SyncQueuedTasks.current()._handle._outbox.derive
        assert derive is not None
        return [derive(TASK) for _ in range(2_000)]

    assert len({id for each in at_once(ids) for id in each}) == THREADS * 2_000


def test_threads_that_ask_at_once_for_the_queue_get_the_same() -> None:
    for _ in range(300):
        assert len(set(at_once(lambda _: SyncQueuedTasks.current()))) == 1


def test_threads_that_begin_a_context_at_once_keep_all_of_it() -> None:
    all_have_kept = Barrier(THREADS)

    def kept(number: int) -> dict[str, Any]:
        set_context(f"thread{number}", number)
        all_have_kept.wait()
        return get_full_context()

    for _ in range(300):
        assert at_once(kept) == [{f"thread{number}": number for number in range(THREADS)}] * THREADS


def derived(*tasks: NewTask) -> list[UUID]:
    """The ids that these tasks get in one run."""
    row = wire.Attempt(1, UUID(int=5).bytes, 2, "import", "app:load", 0, "[]", None, None, None, 0, 0, 3)
    token = running_here.set(Running(row, Workplace(lambda _: None, object(), block=_blocks)))
    try:
        derive = SyncQueuedTasks.current()._handle._outbox.derive
        assert derive is not None
        return [derive(task) for task in tasks]
    finally:
        running_here.reset(token)


def test_a_task_has_the_same_id_in_each_run_whatever_was_added_before_it() -> None:
    other = replace(TASK, args="[2]")
    first, second = derived(TASK, other)
    assert derived(other, TASK) == [second, first]
    assert derived(other) == [second]


def test_tasks_that_are_alike_are_told_apart_by_their_number() -> None:
    assert len({*derived(TASK, TASK, TASK)}) == 3
    assert derived(TASK, TASK)[1] == derived(TASK, TASK, TASK)[1]


@pytest.mark.parametrize(
    "change",
    [
        {"function": "app:store"},
        {"kwargs": '{"a":1}'},
        {"name": "other"},
        {"channel": "mail"},
        {"key": "tenant"},
        {"unique_key": "once"},
        {"parents": (UUID(int=9),)},
        {"context": '{"part":2}'},
        {"priority": 5},
        {"max_retries": 0},
        {"timeout": 7.0},
        {"auto_remove": True},
        {"on_parent_failure": "run"},
        {"executor": Executor.SYNC},
    ],
)
def test_what_makes_another_task_makes_another_id(change: dict[str, Any]) -> None:
    assert derived(TASK) != derived(replace(TASK, **change))


def test_times_are_another_in_each_run_and_leave_the_id_as_it_is() -> None:
    assert derived(TASK) == derived(replace(TASK, run_at=datetime.now(UTC), expires_at=datetime.now(UTC)))


def test_closures_of_one_name_are_other_tasks_by_what_they_capture() -> None:
    def times(factor: int) -> NewTask:
        return replace(TASK, function=dump(lambda x: x * factor))

    two, three = derived(times(2), times(3))
    assert two != three
    assert derived(times(3), times(2)) == [three, two]
