"""Tasks that use the queue: through their server, without connections of their own."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest

from queued_tasks import QueuedTasks, TaskCancelled, TaskFailed
from tests.apps import work
from tests.servers import Rows, Server, go, held_tasks, marks, started
from tests.waiting import wait_until

LIMIT = 30  # seconds
pytestmark = pytest.mark.usefixtures("server")


async def test_a_child_is_written_with_the_outcome(tasks: QueuedTasks, rows: Rows, tmp_path: Path) -> None:
    ref = tasks.add_task(work.add_child, str(tmp_path))
    await ref
    await wait_until(lambda: started(tmp_path))
    assert await rows.value("select count(*) from queued_tasks.task") == 1
    go(tmp_path)
    assert await ref.wait(LIMIT)
    await wait_until(lambda: marks(tmp_path, "child") == 1)


async def test_a_child_of_a_failed_attempt_is_never_written(tasks: QueuedTasks, rows: Rows, tmp_path: Path) -> None:
    go(tmp_path)
    with pytest.raises(TaskFailed, match="after adding"):
        await tasks.add_task(work.add_child, str(tmp_path), task_kwargs={"then_fail": True}, max_retries=0).wait(LIMIT)
    assert await rows.value("select count(*) from queued_tasks.task") == 1


async def test_an_awaited_child_is_written_at_once(tasks: QueuedTasks, tmp_path: Path) -> None:
    ref = tasks.add_task(work.add_child_at_once, str(tmp_path))
    await ref
    await wait_until(lambda: marks(tmp_path, "child") == 1)
    go(tmp_path)
    await ref.wait(LIMIT)


async def test_a_task_waits_for_the_result_of_its_child(tasks: QueuedTasks) -> None:
    assert await tasks.add_task(work.ask_child, 2, 3).wait(LIMIT) == 5


async def test_a_task_sees_the_error_of_its_child(tasks: QueuedTasks) -> None:
    assert await tasks.add_task(work.ask_failing_child).wait(LIMIT) == "the child's"


async def test_a_task_cancels_another(tasks: QueuedTasks, tmp_path: Path) -> None:
    (victim,) = await held_tasks(tasks, tmp_path, 1)
    await wait_until(lambda: started(tmp_path))
    assert await tasks.add_task(work.cancel_other, victim.id).wait(LIMIT) is True
    with pytest.raises(TaskCancelled):
        await victim.wait(LIMIT)


async def test_a_task_retries_another(tasks: QueuedTasks, tmp_path: Path) -> None:
    first = tasks.add_task(work.say, str(tmp_path), "said")
    await first.wait(LIMIT)
    await tasks.add_task(work.retry_other, first.id).wait(LIMIT)
    await wait_until(lambda: marks(tmp_path, "said") == 2)


async def test_a_sync_task_adds_a_child(tasks: QueuedTasks, tmp_path: Path) -> None:
    await tasks.add_task(work.add_child_plainly, str(tmp_path)).wait(LIMIT)
    await wait_until(lambda: marks(tmp_path, "child") == 1)


async def test_what_a_dead_worker_asked_is_forgotten(tasks: QueuedTasks, server: Server, tmp_path: Path) -> None:
    ref = tasks.add_task(work.wait_for_hold, str(tmp_path))
    await ref
    await wait_until(lambda: started(tmp_path))
    for worker in server.workers():
        worker.kill()
    await wait_until(lambda: started(tmp_path) == 2)
    go(tmp_path)
    await ref.wait(LIMIT)


async def test_a_task_that_asks_for_more_than_a_worker_can_be_sent_is_told(tasks: QueuedTasks, rows: Rows) -> None:
    for _ in range(70):
        tasks.add_task(work.say, "", "", run_at=timedelta(days=1))
    await tasks.flush()
    await rows.value("update queued_tasks.task set args = json_build_array('', repeat('x', 1000000))")
    with pytest.raises(TaskFailed, match="with a smaller limit"):
        await tasks.add_task(work.list_others, 100, max_retries=0).wait(LIMIT)
    assert await tasks.add_task(work.list_others, 10).wait(LIMIT) == 10
