"""How attempts end on a running server, and what others see of it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from queued_tasks import QueuedTasks, TaskCancelled, TaskFailed, TaskNotFound, TaskState, TaskStopped, TaskTimeout
from tests.apps import hooked, work
from tests.servers import Rows, Server, go, marks, running_server, started
from tests.waiting import wait_until

LIMIT = 30  # seconds


async def test_results_of_async_and_sync_tasks_come_back(server: Server, tasks: QueuedTasks) -> None:
    assert await tasks.add_task(work.add, 1, 2).wait(LIMIT) == 3
    assert await tasks.add_task(work.add_plainly, 3, 4).wait(LIMIT) == 7


async def test_a_failed_attempt_is_repeated_after_the_backoff_of_its_function(
    server: Server, tasks: QueuedTasks, rows: Rows
) -> None:
    ref = tasks.add_task(work.fail_at_first, 2)
    assert await ref.wait(LIMIT) == 3
    assert await rows.outcomes(ref.id) == ["failed", "failed"]


async def test_retry_is_not_bounded_by_max_retries(server: Server, tasks: QueuedTasks, rows: Rows) -> None:
    ref = tasks.add_task(work.retry_twice)
    assert await ref.wait(LIMIT) == 3
    assert await rows.outcomes(ref.id) == ["retry", "retry"]


async def test_cancel_raised_inside_ends_the_task(server: Server, tasks: QueuedTasks) -> None:
    with pytest.raises(TaskCancelled, match="no longer wanted"):
        await tasks.add_task(work.give_up).wait(LIMIT)


async def test_a_failure_comes_back_with_its_name_message_and_traceback(server: Server, tasks: QueuedTasks) -> None:
    with pytest.raises(TaskFailed) as raised:
        await tasks.add_task(work.fail, "boom", max_retries=0).wait(LIMIT)
    error = raised.value
    assert (error.exception_name, error.exception_message) == ("ValueError", "boom")
    assert "raise ValueError(text)" in (error.exception_traceback or "")


@pytest.mark.parametrize("function", [work.spin_plainly, work.swallow], ids=["sync spin", "swallows the cancellation"])
async def test_a_timeout_ends_code_that_never_gives_way(server: Server, tasks: QueuedTasks, function: object) -> None:
    with pytest.raises(TaskTimeout):
        await tasks.add_task(function, timeout=0.2).wait(LIMIT)  # type: ignore[arg-type]
    assert await tasks.add_task(work.add, 1, 1).wait(LIMIT) == 2


async def test_a_hook_that_hangs_behind_a_plain_function_leaves_the_task_done(
    server: Server, tasks: QueuedTasks, rows: Rows, tmp_path: Path
) -> None:
    ref = tasks.add_task(hooked.count_runs, str(tmp_path), name=hooked.HANG, timeout=2)
    assert await ref.wait(LIMIT) == 1
    assert await rows.outcomes(ref.id) == []
    assert [line.message for line in await tasks.get_logs(ref.id)] == [
        "A hook of on_post_run failed; the task goes on."
    ]


async def test_a_hook_that_can_t_be_interrupted_costs_its_worker_and_the_task_will_run_again(
    server: Server, tasks: QueuedTasks, rows: Rows, tmp_path: Path
) -> None:
    ref = tasks.add_task(hooked.count_runs, str(tmp_path), name=hooked.SWALLOW, timeout=2)
    await ref

    async def was_ended() -> bool:
        return await rows.outcomes(ref.id) == ["timeout"]

    await wait_until(was_ended, deadline=LIMIT)
    assert await ref.get_state() is TaskState.ENQUEUED
    assert await tasks.add_task(hooked.count_runs, str(tmp_path)).wait(LIMIT) == 2


async def test_a_timeout_ends_an_async_task(server: Server, tasks: QueuedTasks) -> None:
    with pytest.raises(TaskTimeout, match=r"0\.1 s"):
        await tasks.add_task(work.sleep, 60, timeout=0.1).wait(LIMIT)


async def test_a_task_that_blocks_its_loop_is_killed_and_its_neighbours_run_again(
    server: Server, tasks: QueuedTasks, rows: Rows, tmp_path: Path
) -> None:
    neighbours = [tasks.add_task(work.hold, str(tmp_path)) for _ in range(3)]
    await wait_until(lambda: started(tmp_path) == 3)
    spinning = tasks.add_task(work.spin, str(tmp_path), timeout=0.2)
    await wait_until(lambda: marks(tmp_path, "spinning"))
    go(tmp_path)
    with pytest.raises(TaskTimeout):
        await spinning.wait(LIMIT)
    for neighbour in neighbours:
        await neighbour.wait(LIMIT)
        assert await rows.outcomes(neighbour.id) == ["interrupted"]


@pytest.mark.parametrize("function", [work.hold, work.hold_plainly], ids=["async", "sync"])
async def test_a_running_task_is_cancelled(
    server: Server, tasks: QueuedTasks, tmp_path: Path, function: Callable[[str], object]
) -> None:
    ref = tasks.add_task(function, str(tmp_path))
    await ref
    await wait_until(lambda: started(tmp_path))
    assert await ref.cancel()
    with pytest.raises(TaskCancelled):
        await ref.wait(LIMIT)


async def test_a_task_that_has_not_started_is_cancelled_for_good(
    server: Server, tasks: QueuedTasks, tmp_path: Path
) -> None:
    ref = tasks.add_task(work.say, str(tmp_path), "ran", run_at=timedelta(seconds=0.5))
    await ref
    assert await ref.cancel()
    with pytest.raises(TaskCancelled):
        await ref.wait(LIMIT)
    later = tasks.add_task(work.add, 1, 1, run_at=timedelta(seconds=0.6))
    await later.wait(LIMIT)
    assert not marks(tmp_path, "ran")


async def test_a_stopped_task_goes_on_when_it_is_retried(server: Server, tasks: QueuedTasks, tmp_path: Path) -> None:
    ref = tasks.add_task(work.hold, str(tmp_path))
    await ref
    await wait_until(lambda: started(tmp_path))
    assert await ref.stop()
    with pytest.raises(TaskStopped):
        await ref.wait(LIMIT)
    go(tmp_path)
    retried = await tasks.retry_task(ref.id)
    assert retried.id == ref.id
    await ref.wait(LIMIT)
    assert started(tmp_path) == 2


async def test_a_delayed_task_runs_when_it_is_due_and_not_before(server: Server, tasks: QueuedTasks) -> None:
    due = datetime.now(UTC) + timedelta(seconds=1)
    ref = tasks.add_task(work.add, 1, 1, run_at=due)
    await ref.wait(LIMIT)
    task = await tasks.get_task_by_id(ref.id)
    assert task is not None
    assert task.started_at is not None
    assert task.started_at >= due


async def test_higher_priorities_start_first(database: str, tasks: QueuedTasks) -> None:
    refs = [tasks.add_task(work.add, 1, 1, priority=priority) for priority in (0, 5, -5, 10)]
    await tasks.flush()
    async with running_server(database, concurrency=1):
        for ref in refs:
            await ref.wait(LIMIT)
    ended = [await tasks.get_task_by_id(ref.id) for ref in refs]
    in_order = sorted((task for task in ended if task), key=lambda task: task.started_at or datetime.max)
    assert [task.priority for task in in_order] == [10, 5, 0, -5]


async def test_the_context_can_be_read_while_the_task_runs(server: Server, tasks: QueuedTasks, tmp_path: Path) -> None:
    ref = tasks.add_task(work.progress, str(tmp_path))
    await ref

    async def context() -> object:
        task = await tasks.get_task_by_id(ref.id)
        return task and task.context

    async def has_begun() -> bool:
        return await context() == {"step": {"now": 1}}

    await wait_until(has_begun)
    go(tmp_path)
    assert await ref.wait(LIMIT) == 2
    assert await context() == {"step": {"now": 2}}


async def test_what_a_task_logs_is_kept_in_its_order(server: Server, tasks: QueuedTasks) -> None:
    ref = tasks.add_task(work.chatter, 500)
    await ref.wait(LIMIT)
    lines = await tasks.get_logs(ref.id)
    assert [line.message for line in lines] == [f"line {number}" for number in range(500)]


async def test_auto_remove_gives_the_result_to_whoever_waits(
    server: Server, tasks: QueuedTasks, rows: Rows, tmp_path: Path
) -> None:
    ref = tasks.add_task(work.hold, str(tmp_path), auto_remove=True)
    waiting = asyncio.ensure_future(ref.wait(LIMIT))
    await wait_until(lambda: started(tmp_path))
    await wait_until(lambda: rows.value("select count(*) from queued_tasks.waiter"))
    go(tmp_path)
    assert isinstance(await waiting, int)


async def test_auto_remove_leaves_nothing(server: Server, tasks: QueuedTasks, rows: Rows) -> None:
    ref = tasks.add_task(work.add, 1, 1, auto_remove=True)
    await ref
    await wait_until(lambda: _is_gone(rows, ref.id))
    with pytest.raises(TaskNotFound):
        await ref.wait(LIMIT)


async def test_an_expired_task_is_cancelled_instead_of_run(database: str, tasks: QueuedTasks) -> None:
    ref = tasks.add_task(work.add, 1, 1, expires_at=timedelta(seconds=0))
    await ref
    async with running_server(database):
        with pytest.raises(TaskCancelled, match="expired"):
            await ref.wait(LIMIT)


async def test_a_batch_of_large_arguments_reaches_its_worker(server: Server, tasks: QueuedTasks) -> None:
    refs = [tasks.add_task(work.large, "x" * 1_000_000) for _ in range(80)]
    await tasks.flush()
    assert [await ref.wait(LIMIT) for ref in refs] == [1_000_000] * 80


async def test_the_state_is_doing_while_a_task_runs(server: Server, tasks: QueuedTasks, tmp_path: Path) -> None:
    ref = tasks.add_task(work.hold, str(tmp_path))
    await ref
    await wait_until(lambda: started(tmp_path))
    assert await ref.get_state() is TaskState.DOING


async def _is_gone(rows: Rows, id: object) -> bool:
    return not await rows.value("select count(*) from queued_tasks.task where id = $1", id)
