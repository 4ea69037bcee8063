"""Tasks in a transaction of the user's: they share its fate, whatever driver it is opened with."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, suppress
from typing import Any

import asyncpg
import pytest
from loguru import logger
from sqlalchemy.ext.asyncio import create_async_engine

from queued_tasks import QueuedTasks, Settings, Task, TaskSpec, TaskState, on_post_create, on_pre_create
from queued_tasks.runtime.errors import InvalidState, InvalidTask, SchemaOutdated
from queued_tasks.runtime.hooks import HookTask
from tests.databases import connected
from tests.orders import left
from tests.store import Store
from tests.ways import ALL, AWAITED, BLOCKING, SESSIONS, Undo, Way, way

every_way = pytest.mark.parametrize("kind", ALL)


def work(value: Any = None) -> None: ...


@pytest.fixture
async def store(database: str) -> AsyncIterator[Store]:
    async with AsyncExitStack() as stack:
        yield await Store.open(database, stack)


@pytest.fixture
def said() -> Iterator[list[str]]:
    """What was logged as an error."""
    lines: list[str] = []
    sink = logger.add(lambda line: lines.append(str(line)), level="ERROR")
    yield lines
    logger.remove(sink)


@every_way
async def test_a_task_commits_with_the_order(tasks: QueuedTasks, rows: asyncpg.Connection, open_way: Way) -> None:
    await open_way.execute("insert into orders values (1)")
    await open_way.add(tasks, work, 1)
    assert await left(rows) == (0, 0)
    await open_way.commit()
    assert await left(rows) == (1, 1)


@every_way
async def test_a_task_is_rolled_back_with_the_order(
    tasks: QueuedTasks, rows: asyncpg.Connection, open_way: Way
) -> None:
    await open_way.execute("insert into orders values (1)")
    await open_way.add(tasks, work, 1)
    await open_way.rollback()
    assert await left(rows) == (0, 0)


@every_way
async def test_a_task_is_rolled_back_with_its_savepoint(
    tasks: QueuedTasks, rows: asyncpg.Connection, open_way: Way
) -> None:
    await open_way.execute("insert into orders values (1)")
    await open_way.add(tasks, work, "before")
    with suppress(Undo):
        async with open_way.savepoint():
            await open_way.add(tasks, work, "inside")
            raise Undo
    await open_way.add(tasks, work, "after")
    await open_way.commit()
    args = await rows.fetch("select args::text from queued_tasks.task order by id")
    assert [row["args"] for row in args] == ['["before"]', '["after"]']


@every_way
async def test_a_task_commits_with_its_savepoint(tasks: QueuedTasks, rows: asyncpg.Connection, open_way: Way) -> None:
    async with open_way.savepoint():
        await open_way.execute("insert into orders values (1)")
        await open_way.add(tasks, work)
    await open_way.commit()
    assert await left(rows) == (1, 1)


@pytest.mark.parametrize("kind", SESSIONS)
async def test_what_is_awaited_inside_a_savepoint_takes_nothing_of_before_along(
    tasks: QueuedTasks, rows: asyncpg.Connection, open_way: Way
) -> None:
    await open_way.execute("insert into orders values (1)")
    handle = tasks.on(open_way.subject)
    handle.add_task(work, "before")
    with suppress(Undo):
        async with open_way.savepoint():
            await handle.add_task(work, "inside")
            raise Undo
    await open_way.commit()
    assert await rows.fetchval("select string_agg(args::text, ' ') from queued_tasks.task") == '["before"]'


@pytest.mark.parametrize("kind", SESSIONS)
async def test_a_session_that_is_closed_without_a_commit_leaves_nothing(
    tasks: QueuedTasks, rows: asyncpg.Connection, open_way: Way
) -> None:
    await open_way.execute("insert into orders values (1)")
    await open_way.add(tasks, work)
    closed = open_way.subject.close()
    if closed is not None:
        await closed
    await open_way.execute("insert into orders values (2)")
    await open_way.commit()
    assert await left(rows) == (1, 0)


@pytest.mark.parametrize("kind", SESSIONS)
async def test_a_task_that_is_the_first_of_a_session_is_rolled_back_with_it(
    tasks: QueuedTasks, rows: asyncpg.Connection, open_way: Way
) -> None:
    ref = await open_way.add(tasks, work)
    await open_way.rollback()
    await open_way.commit()
    assert await left(rows) == (0, 0)
    with pytest.raises(InvalidState, match="rolled back"):
        await ref


@pytest.mark.parametrize("kind", [*AWAITED, *SESSIONS])
async def test_the_awaited_form_writes_at_once(tasks: QueuedTasks, rows: asyncpg.Connection, open_way: Way) -> None:
    task = await tasks.on(open_way.subject).add_task_async(work, 7)
    assert isinstance(task, Task)
    assert (task.args, task.state) == ([7], "enqueued")
    await open_way.commit()
    assert await tasks.get_task_by_id(task.id) is not None


@every_way
async def test_the_connection_may_be_an_option(tasks: QueuedTasks, rows: asyncpg.Connection, open_way: Way) -> None:
    ref = tasks.add_task(work, 1, connection=open_way.subject, priority=3)
    if open_way.kind in AWAITED:
        await ref
    await open_way.commit()
    task = await tasks.get_task_by_id(ref.id)
    assert task is not None
    assert task.priority == 3


@every_way
async def test_many_tasks_go_out_in_one_statement(tasks: QueuedTasks, rows: asyncpg.Connection, open_way: Way) -> None:
    refs = await tasks.on(open_way.subject).add_tasks(TaskSpec(work, [number]) for number in range(50))
    assert len(refs) == 50
    await open_way.commit()
    assert await left(rows) == (0, 50)


@every_way
async def test_a_graph_keeps_its_parents(tasks: QueuedTasks, rows: asyncpg.Connection, open_way: Way) -> None:
    refs = tasks.on(open_way.subject).chain(TaskSpec(work), TaskSpec(work))
    if open_way.kind in AWAITED:
        await refs
    await open_way.commit()
    child = await tasks.get_task_by_id(refs[1].id)
    assert child is not None
    assert (child.parents, child.state) == ([refs[0].id], "waiting")


async def test_every_field_arrives_as_it_would_otherwise(
    tasks: QueuedTasks, rows: asyncpg.Connection, database: str
) -> None:
    options: dict[str, Any] = {
        "name": "näme",
        "channel": "mail",
        "key": "k",
        "priority": -5,
        "max_retries": 1,
        "timeout": 1.5,
        "auto_remove": True,
        "on_parent_failure": "run",
        "context": {"a": "ü"},
    }
    plain = await tasks.add_task_async(work, "ä\\n", **options)
    async with way("asyncpg", database) as opened:
        ref = await opened.add(tasks, work, "ä\\n", **options)
        await opened.commit()
    columns = (
        "function, executor, args::text, kwargs::text, name, channel, key, priority, max_retries, timeout,"
        " auto_remove, on_parent_failure, context::text, parents, stand_ins, run_at, expires_at, signature"
    )
    query = f"select {columns} from queued_tasks.task where id = $1"
    assert await rows.fetchrow(query, ref.id) == await rows.fetchrow(query, plain.id)


async def test_a_posted_task_is_signed(database: str) -> None:
    async with (
        QueuedTasks.connect(database, settings=Settings(secret_key="key")) as tasks,
        way("blocking psycopg", database) as opened,
    ):
        ref = await opened.add(tasks, work)
        await opened.commit()
        async with connected(database) as rows:
            signature = await rows.fetchval("select signature from queued_tasks.task where id = $1", ref.id)
        assert len(signature) == 32
        await tasks.cancel_task(ref.id)
        assert (await tasks.retry_task(ref.id)).name == "work_retry"


async def test_a_unique_key_that_is_taken_gives_the_task_that_has_it(
    tasks: QueuedTasks, rows: asyncpg.Connection, database: str
) -> None:
    first = await tasks.add_task_async(work, unique="k")
    async with way("asyncpg", database) as opened:
        ref = await opened.add(tasks, work, unique="k")
        assert (ref.created, ref.id) == (False, first.id)
        await opened.commit()
    assert await left(rows) == (0, 0)


async def test_a_unique_key_in_an_open_transaction_keeps_nobody_waiting(
    tasks: QueuedTasks, rows: asyncpg.Connection, database: str, store: Store
) -> None:
    async with way("asyncpg", database) as opened:
        late = await opened.add(tasks, work, unique="k")
        other = await tasks.add_task_async(work, unique="k")
        await opened.commit()
    await store.upkeep.promote_inbox(100)
    task = await tasks.get_task_by_id(late.id)
    assert task is not None
    assert (task.state, task.exception_message) == (
        "cancelled",
        f"task {other.id} with the same unique key was there before",
    )


async def test_the_children_of_a_task_that_gave_way_follow_the_other_one(
    tasks: QueuedTasks, rows: asyncpg.Connection, database: str, store: Store
) -> None:
    async with way("asyncpg", database) as opened:
        parent = await opened.add(tasks, work, unique="k")
        child = await opened.add(tasks, work, parent=parent)
        other = await tasks.add_task_async(work, unique="k")
        await opened.commit()
    await store.upkeep.promote_inbox(100)
    assert await store.state(child.id) == "waiting"
    server = await store.server()
    assert [claimed.id for claimed in await store.run(server)] == [other.id]
    assert [claimed.id for claimed in await store.claim(server)] == [child.id]


async def test_a_child_elsewhere_needs_its_parent_committed(
    tasks: QueuedTasks, rows: asyncpg.Connection, database: str
) -> None:
    async with way("asyncpg", database) as opened:
        parent = await opened.add(tasks, work)
        with pytest.raises(InvalidTask, match="has not been committed"):
            await tasks.add_task(work, parent=parent)
        await opened.commit()
    child = await tasks.add_task_async(work, parent=parent)
    assert child.state is TaskState.WAITING


async def test_a_task_that_nobody_awaits_is_logged_when_it_is_collected(
    tasks: QueuedTasks, rows: asyncpg.Connection, said: list[str]
) -> None:
    tasks.on(rows).add_task(work)
    gc.collect()
    assert len(said) == 1
    assert "never awaited" in said[0]


async def test_a_pool_or_an_engine_is_refused(tasks: QueuedTasks, database: str) -> None:
    engine = create_async_engine(database.replace("postgresql://", "postgresql+asyncpg://"))
    with pytest.raises(InvalidTask, match="not a pool, an engine"):
        tasks.on(engine)


async def test_a_connection_to_another_database_says_so(tasks: QueuedTasks, postgres: str) -> None:
    async with way("psycopg", postgres) as opened:
        with pytest.raises(SchemaOutdated, match="give a connection to the queue's database"):
            await opened.add(tasks, work)


def takes_connection(connection: str) -> None: ...


async def test_a_parameter_called_connection_is_told_apart(tasks: QueuedTasks, rows: asyncpg.Connection) -> None:
    with pytest.raises(InvalidTask, match="task_kwargs"):
        tasks.add_task(takes_connection, connection=rows)


@pytest.mark.parametrize("kind", [*AWAITED, "session+asyncpg", "session+psycopg"])
async def test_async_hooks_are_asked_and_told(tasks: QueuedTasks, rows: asyncpg.Connection, open_way: Way) -> None:
    seen: list[str] = []

    async def before(task: HookTask) -> None:
        await asyncio.sleep(0)
        task.context["tenant"] = 7

    async def after(task: HookTask) -> None:
        await asyncio.sleep(0)
        seen.append(task.name)

    on_pre_create(before)
    on_post_create(after)
    try:
        ref = await open_way.add(tasks, work)
        await open_way.commit()
    finally:
        on_pre_create.remove(before)
        on_post_create.remove(after)
    task = await tasks.get_task_by_id(ref.id)
    assert task is not None
    assert (task.context, seen) == ({"tenant": 7}, ["work"])


@pytest.mark.parametrize("kind", BLOCKING)
async def test_an_async_hook_that_waits_is_refused_where_the_connection_blocks(
    tasks: QueuedTasks, rows: asyncpg.Connection, open_way: Way
) -> None:
    async def before(task: HookTask) -> None:
        await asyncio.sleep(0.001)

    on_pre_create(before)
    try:
        with pytest.raises(InvalidState, match="use an async connection"):
            tasks.on(open_way.subject).add_task(work)
    finally:
        on_pre_create.remove(before)


def test_a_blocking_handle_writes_over_a_blocking_connection(database: str) -> None:
    import psycopg

    with QueuedTasks.sync(database) as tasks, psycopg.connect(database) as connection:
        ref = tasks.on(connection).add_task(work, 1)
        connection.rollback()
        assert tasks.get_task_by_id(ref.id) is None
        ref = tasks.on(connection).add_task(work, 2)
        connection.commit()
        task = tasks.get_task_by_id(ref.id)
        assert task is not None
        assert task.args == [2]
