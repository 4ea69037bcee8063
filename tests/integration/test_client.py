"""The handle's verbs against PostgreSQL: look, list, cancel, retry, schedule; and how it connects."""

from __future__ import annotations

from datetime import timedelta
from typing import Any
from unittest.mock import patch
from uuid import UUID, uuid4

import asyncpg
import pytest

from queued_tasks.runtime import outbox
from queued_tasks.runtime.direct import Connections, DirectBackend
from queued_tasks.runtime.errors import (
    ConfigurationError,
    DatabaseUnavailable,
    InvalidState,
    InvalidTask,
    SchemaOutdated,
    TaskNotFound,
)
from queued_tasks.runtime.handles import QueuedTasks
from queued_tasks.runtime.settings import Settings
from queued_tasks.runtime.task import TaskSpec, TaskState


async def send(to: str, copies: int = 1) -> None: ...


def plain(value: Any) -> None: ...


async def test_a_handle_has_tried_how_to_add_when_it_opens(tasks: QueuedTasks, rows: asyncpg.Connection) -> None:
    del tasks
    asked = await rows.fetchval(
        "select query from pg_stat_activity "
        "where datname = current_database() and application_name = 'queued-tasks writer'"
    )
    assert "queued_tasks.add_tasks(" in asked


async def test_schedule_takes_a_path(tasks: QueuedTasks) -> None:
    found = await tasks.schedule(f"{__name__}:send", timedelta(minutes=5), args=["a"], kwargs={"copies": 3})
    assert found.run_at is not None
    assert (found.function, found.kwargs) == (f"{__name__}:send", {"copies": 3})


async def test_ids_are_of_the_type_that_everybody_knows(tasks: QueuedTasks, rows: asyncpg.Connection) -> None:
    parent = tasks.add_task(send, "ann")
    child = tasks.add_task(send, "bob", parent=parent, unique="child")
    twin = tasks.add_task(send, "bob", parent=parent, unique="child")
    await tasks.flush()
    await rows.execute(
        "insert into queued_tasks.log (task_id, attempt, at, level, logger, message) values ($1, 1, now(), 20, '', '')",
        parent.id,
    )
    task = await tasks.get_task_by_id(child.id)
    assert task is not None
    (line,) = await tasks.get_logs(parent.id)
    ids = [parent.id, child.id, twin.id, task.id, *task.parents, line.task_id]
    assert {type(id) for id in ids} == {UUID}
    assert ids == [parent.id, child.id, child.id, child.id, parent.id, parent.id]


async def test_a_cancelled_task_is_cancelled_once(tasks: QueuedTasks) -> None:
    ref = tasks.add_task(plain, 1)
    assert (await tasks.cancel_task(ref.id), await ref.cancel()) == (True, False)


async def test_an_unstarted_task_cannot_be_stopped(tasks: QueuedTasks) -> None:
    assert await tasks.add_task(plain, 1).stop() is False


async def test_an_unknown_id_is_no_task(tasks: QueuedTasks) -> None:
    assert await tasks.get_task_by_id(uuid4()) is None
    assert await tasks.get_task_status(str(uuid4())) is None
    for verb in (tasks.cancel_task, tasks.stop_task, tasks.retry_task, tasks.get_logs):
        with pytest.raises(TaskNotFound):
            await verb(uuid4())
    assert await tasks.get_logs(await tasks.add_task(plain, 1)) == []


async def test_the_status_says_what_can_be_done(tasks: QueuedTasks) -> None:
    ref = tasks.add_task(plain, 1)
    await ref.cancel()
    status = await tasks.get_task_status(ref.id)
    assert status is not None
    flags = ("is_finished", "is_active", "can_be_restarted", "can_be_cancelled")
    assert [status[name] for name in ("name", "state", *flags)] == ["plain", "cancelled", True, False, True, False]


async def test_a_retry_is_a_clone_with_everything_but_the_fate_of_the_first(tasks: QueuedTasks) -> None:
    ref = tasks.add_task(send, "a", copies=2, priority=4, channel="mail", context={"a": 1}, unique="key")
    await ref.cancel()
    clone = await tasks.retry_task(ref.id)
    assert (clone.name, clone.args, clone.kwargs, clone.priority) == ("send_retry", ["a"], {"copies": 2}, 4)
    assert (clone.channel, clone.context, clone.unique_key, clone.state) == ("mail", {"a": 1}, "key", "enqueued")


async def test_a_task_under_way_cannot_be_retried(tasks: QueuedTasks) -> None:
    with pytest.raises(InvalidState, match="is enqueued"):
        await tasks.retry_task(await tasks.add_task(plain, 1))


async def test_a_task_whose_unique_key_another_one_has_cannot_be_retried(tasks: QueuedTasks) -> None:
    ref = tasks.add_task(plain, 1, unique="key")
    child = tasks.add_task(plain, 2, parent=ref)
    await ref.cancel()
    other = await tasks.add_task(plain, 3, unique="key")
    with pytest.raises(InvalidState, match=f"task {other} has its unique key"):
        await tasks.retry_task(ref.id, subtree=True)
    assert [task.id for task in await tasks.list_tasks()] == [other, child.id, ref.id]


async def test_a_stopped_task_goes_on_in_its_place(tasks: QueuedTasks, database: str) -> None:
    id = await tasks.add_task(plain, 1)
    rows = await asyncpg.connect(database)
    await rows.execute("delete from queued_tasks.bundle")
    await rows.execute("insert into queued_tasks.stopped (id, attempt) values ($1, 1)", id)
    await rows.close()
    resumed = await tasks.retry_task(id)
    assert (resumed.id, resumed.state) == (id, TaskState.ENQUEUED)


async def test_pages_are_newest_first_and_go_on_after_the_last(tasks: QueuedTasks) -> None:
    refs = await tasks.add_tasks([TaskSpec(plain, [number]) for number in range(5)])
    first = await tasks.list_tasks(limit=2)
    second = await tasks.list_tasks(limit=2, before=first[-1].id)
    assert [found.id for found in (*first, *second)] == [ref.id for ref in refs[:0:-1]]


async def test_a_filter_that_cannot_match_is_refused(tasks: QueuedTasks) -> None:
    with pytest.raises(InvalidTask, match="enqueued, waiting"):
        await tasks.list_tasks(state="finished")


@pytest.mark.parametrize("asked", [{"name": 5}, {"name": "a\0b"}, {"channel": 5}, {"channel": "\ud800"}])
async def test_a_filter_that_is_no_text_is_refused_by_name(tasks: QueuedTasks, asked: dict[str, Any]) -> None:
    with pytest.raises(InvalidTask, match=f"{next(iter(asked))} is .* give a text"):
        await tasks.list_tasks(**asked)


async def test_a_retry_of_the_longest_name_is_found_by_its_own(tasks: QueuedTasks) -> None:
    ref = tasks.add_task(plain, 1, name="x" * 200)
    await tasks.cancel_task(ref.id)
    retried = await tasks.retry_task(ref.id)
    assert [found.id for found in await tasks.list_tasks(name=retried.name)] == [retried.id]


async def test_pending_tasks_are_counted_with_the_delayed_ones(tasks: QueuedTasks) -> None:
    parent = tasks.add_task(plain, 1)
    tasks.add_task(plain, 2, run_at=timedelta(hours=1))
    await tasks.add_task(plain, 3, parent=parent)
    assert await tasks.get_pending_tasks_count() == 2


async def test_connect_refuses_a_database_without_the_schema(empty_database: str) -> None:
    with pytest.raises(SchemaOutdated, match="queued-tasks migrate"):
        async with QueuedTasks.connect(empty_database):
            pass


async def test_connect_refuses_what_is_no_url_of_postgresql() -> None:
    with pytest.raises(ConfigurationError, match="QUEUE_DATABASE_URL"):
        async with QueuedTasks.connect("mysql://root@localhost/x"):
            pass


async def test_connect_gives_up_on_a_server_that_is_not_there() -> None:
    with (
        patch("queued_tasks.runtime.direct._CONNECT_PATIENCE", 0.3),
        pytest.raises(DatabaseUnavailable, match="Tried for"),
    ):
        async with QueuedTasks.connect("postgresql://nobody@127.0.0.1:1/x"):
            pass


async def test_outside_a_task_there_is_no_current_handle() -> None:
    with pytest.raises(InvalidState, match="Inject"):
        QueuedTasks.current()


async def test_tasks_handed_over_are_complete_and_the_outbox_closed(database: str) -> None:
    backend = DirectBackend(Connections.of(database, Settings()), Settings())
    box = outbox.Outbox(backend, together=True)
    tasks = QueuedTasks(backend, box, Settings())
    parent = tasks.add_task(plain, 1)
    tasks.add_task(plain, 2, parent=parent)
    handed = await box.hand_over("The task has ended.")
    assert [new.parents for new in handed] == [(), (parent.id,)]
    with pytest.raises(InvalidState, match="The task has ended"):
        tasks.add_task(plain, 3)
    with pytest.raises(InvalidState, match="not written here"):
        await parent
