"""A large batch goes to PostgreSQL part by part while it is being made, and is one batch all the same."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from typing import Any
from unittest.mock import patch
from uuid import UUID

import asyncpg
import pytest

from queued_tasks.runtime import client
from queued_tasks.runtime.draft import OpenDraft
from queued_tasks.runtime.errors import DatabaseUnavailable, InvalidState, InvalidTask, SerializationError
from queued_tasks.runtime.handles import QueuedTasks
from queued_tasks.runtime.hooks import HookTask, on_post_create, on_pre_create
from queued_tasks.runtime.store.tasks import TaskStore
from queued_tasks.runtime.task import NewTask, TaskSpec
from tests.enqueued import count
from tests.proxy import proxied
from tests.waiting import wait_until

SIZE = 10  # a batch of four parts, the last of them short


async def plain(value: Any) -> None: ...


async def listed(value: Iterable[str]) -> None: ...


@pytest.fixture(autouse=True)
def short_parts() -> Iterator[None]:
    with patch.object(client, "_PART", 3):
        yield


@pytest.fixture
def wholes() -> Iterator[list[int]]:
    """The size of each batch that goes out as a whole."""
    sizes: list[int] = []
    add = TaskStore.add

    async def counted(self: TaskStore, tasks: Sequence[NewTask], *, repeat: bool = False) -> dict[UUID, UUID]:
        sizes.append(len(tasks))
        return await add(self, tasks, repeat=repeat)

    with patch.object(TaskStore, "add", counted):
        yield sizes


def specs(size: int = SIZE) -> list[TaskSpec]:
    return [TaskSpec(plain, [number]) for number in range(size)]


def after(part: int, act: Callable[[], Awaitable[object]]) -> Any:
    """Let `act` happen once that part of a batch is on its way."""
    send, sent = OpenDraft.send, 0

    async def sending(self: OpenDraft, tasks: Sequence[NewTask]) -> None:
        nonlocal sent
        await send(self, tasks)
        sent += 1
        if sent == part:
            await act()

    return patch.object(OpenDraft, "send", sending)


async def test_a_batch_goes_out_in_parts_and_in_its_order(
    tasks: QueuedTasks, rows: asyncpg.Connection, wholes: list[int]
) -> None:
    await tasks.add_task(plain, "first, so that the lane is known")
    seen: list[int] = []

    async def look() -> None:
        seen.append(await count(rows))

    with after(3, look):
        refs = await tasks.add_tasks(specs())
    lined = await rows.fetch("select id from queued_tasks.ready order by seq offset 1")
    assert [row["id"] for row in lined] == [ref.id for ref in refs]
    assert all(ref.created for ref in refs)
    assert (wholes, seen, len(refs)) == ([1], [1], SIZE)


async def test_the_first_batch_of_a_lane_goes_out_in_parts_too(tasks: QueuedTasks, wholes: list[int]) -> None:
    refs = await tasks.add_tasks(specs())
    assert ([ref.created for ref in refs], wholes) == ([True] * SIZE, [])


async def test_a_bad_task_in_the_last_part_leaves_nothing_of_the_others(
    tasks: QueuedTasks, rows: asyncpg.Connection, wholes: list[int]
) -> None:
    await tasks.add_task(plain, "first")
    with pytest.raises(SerializationError):
        await tasks.add_tasks([*specs(), TaskSpec(plain, [object()])])
    await tasks.add_task(plain, "next")
    assert (await count(rows), wholes) == (2, [1, 1])


async def test_a_row_that_the_database_refuses_refuses_the_whole_batch(
    tasks: QueuedTasks, rows: asyncpg.Connection
) -> None:
    await tasks.add_task(plain, "first")
    await rows.execute("alter table queued_tasks.task add check (name <> 'bad')")
    with pytest.raises(asyncpg.CheckViolationError):
        await tasks.add_tasks([*specs(), TaskSpec(plain, [0], name="bad"), *specs()])
    assert await count(rows) == 1


async def test_a_batch_whose_connection_breaks_in_between_is_written_once(
    database: str, rows: asyncpg.Connection, wholes: list[int]
) -> None:
    async with proxied(database) as (proxy, dsn), QueuedTasks.connect(dsn) as tasks:
        await tasks.add_task(plain, "first")

        async def away() -> None:
            proxy.cut()
            await proxy.open()

        with after(2, away):
            refs = await tasks.add_tasks(specs())
    assert all(ref.created for ref in refs)
    assert (await count(rows), wholes) == (SIZE + 1, [1, SIZE])


async def test_a_batch_whose_commit_has_no_answer_is_written_once(database: str, rows: asyncpg.Connection) -> None:
    async with proxied(database) as (proxy, dsn), QueuedTasks.connect(dsn) as tasks:
        await tasks.add_task(plain, "first")
        proxy.cut_after(b"commit\0")
        refs = await tasks.add_tasks(specs())
        lines = await rows.fetchval("select count(*) from queued_tasks.ready")
    assert (proxy.cuts, lines, await count(rows)) == (1, SIZE + 1, SIZE + 1)
    assert all(ref.created for ref in refs)


async def test_unique_tasks_in_a_later_part_go_out_with_the_whole_batch(
    tasks: QueuedTasks, rows: asyncpg.Connection, wholes: list[int]
) -> None:
    holder = await tasks.add_task(plain, "first", unique="key")
    refs = await tasks.add_tasks([*specs(), *(TaskSpec(plain, [0], unique=key) for key in ("key", "other", "other"))])
    assert [ref.created for ref in refs[-3:]] == [False, True, False]
    assert refs[-3].id == holder
    assert (await count(rows), wholes) == (SIZE + 2, [1, SIZE + 3])


async def test_a_parent_that_is_not_written_yet_is_written_before_the_batch(
    tasks: QueuedTasks, rows: asyncpg.Connection
) -> None:
    await tasks.add_task(plain, "first")
    parent = tasks.add_task(plain, "parent")
    child = (await tasks.add_tasks([*specs(), TaskSpec(plain, ["child"], parent=parent)]))[-1]
    assert parent.created
    assert await rows.fetchval("select parents from queued_tasks.task where id = $1", child.id) == [parent.id]


async def test_a_later_part_may_have_a_lane_that_nobody_has_used(tasks: QueuedTasks, rows: asyncpg.Connection) -> None:
    await tasks.add_task(plain, "first")
    await tasks.add_tasks([*specs(), TaskSpec(plain, [0], channel="new", priority=3)])
    assert await count(rows) == SIZE + 2


async def test_a_batch_that_is_given_up_leaves_nothing_behind(tasks: QueuedTasks, rows: asyncpg.Connection) -> None:
    await tasks.add_task(plain, "first")
    reached = asyncio.Event()

    async def forever() -> None:
        reached.set()
        await asyncio.Event().wait()

    with after(2, forever):
        adding = asyncio.ensure_future(tasks.add_tasks(specs()))
        await reached.wait()
        adding.cancel()
        with pytest.raises(asyncio.CancelledError):
            await adding
    await tasks.add_task(plain, "next")
    assert await count(rows) == 2


async def test_who_adds_meanwhile_comes_after_the_batch(
    tasks: QueuedTasks, rows: asyncpg.Connection, wholes: list[int]
) -> None:
    await tasks.add_task(plain, "first")
    others: list[asyncio.Task[Any]] = []

    async def add() -> None:
        others.append(asyncio.ensure_future(tasks.add_tasks(specs())))
        others.append(asyncio.ensure_future(tasks.add_task_async(plain, "meanwhile")))
        await asyncio.sleep(0)

    with after(1, add):
        refs = await tasks.add_tasks(specs())
    await asyncio.gather(*others)
    lined = await rows.fetch("select id from queued_tasks.ready order by seq offset 1 limit $1", SIZE)
    assert [row["id"] for row in lined] == [ref.id for ref in refs]
    assert (await count(rows), sum(wholes)) == (2 * SIZE + 2, SIZE + 2)


async def test_who_is_in_the_middle_of_a_batch_when_the_handle_closes_is_told_so(
    database: str, rows: asyncpg.Connection
) -> None:
    reached, closed = asyncio.Event(), asyncio.Event()

    async def pause() -> None:
        reached.set()
        await closed.wait()

    with after(2, pause):
        async with QueuedTasks.connect(database) as tasks:
            await tasks.add_task(plain, "first")
            adding = asyncio.ensure_future(tasks.add_tasks(specs()))
            await reached.wait()
        closed.set()
        with pytest.raises(InvalidState, match="closed"):
            await adding
    query = "select 1 from pg_stat_activity where application_name = 'queued-tasks writer' and datname = $1"
    name = await rows.fetchval("select current_database()")

    async def gone() -> bool:
        return not await rows.fetchval(query, name)

    await wait_until(gone)
    assert await count(rows) == 1


async def test_a_batch_on_a_connection_that_hangs_is_given_up_in_time(database: str, rows: asyncpg.Connection) -> None:
    async with proxied(database) as (proxy, dsn), QueuedTasks.connect(dsn) as tasks:
        await tasks.add_task(plain, "first")
        patience, tasks._outbox.patience = tasks._outbox.patience, 0.3

        async def hang() -> None:
            proxy.freeze()

        with after(2, hang), pytest.raises(DatabaseUnavailable, match=r"within 0\.3 s"):
            await tasks.add_tasks(specs())
        proxy.cut()
        await proxy.open()
        tasks._outbox.patience = patience
        await tasks.add_task(plain, "next")
    assert await count(rows) == 2


async def test_an_async_pre_create_hook_has_its_say_before_anything_is_written(
    tasks: QueuedTasks, rows: asyncpg.Connection
) -> None:
    await tasks.add_task(plain, "first", context={"seen": True})

    @on_pre_create
    async def refuse(task: HookTask) -> None:
        task.context["seen"] = True
        if task.args == [SIZE - 1]:
            raise InvalidTask("not this one")

    try:
        await tasks.add_tasks(specs(SIZE - 1))
        with pytest.raises(InvalidTask, match="not this one"):
            await tasks.add_tasks(specs())
    finally:
        on_pre_create.remove(refuse)
    contexts = await rows.fetch("select context::text from queued_tasks.task")
    assert [row["context"] for row in contexts] == ['{"seen":true}'] * SIZE


async def test_post_create_hooks_and_servers_are_told_of_all_parts(
    database: str, tasks: QueuedTasks, wholes: list[int]
) -> None:
    heard: asyncio.Queue[str] = asyncio.Queue()
    listener = await asyncpg.connect(database)
    await tasks.add_task(plain, "first")
    await listener.add_listener("queue_new_task.queued_tasks", lambda *message: heard.put_nowait(message[3]))
    lane = await listener.fetchval("select id from queued_tasks.lane")
    seen: list[Any] = []

    @on_post_create
    def look(task: HookTask) -> None:
        seen.extend(task.args)

    try:
        await tasks.add_tasks(specs())
    finally:
        on_post_create.remove(look)
    async with asyncio.timeout(20):
        while (said := (await heard.get()).split(" ")[0]) == f"{lane}:1":  # of the first
            continue
    await listener.close()
    assert (seen, said, wholes) == ([*range(SIZE)], f"{lane}:{SIZE}", [1])


async def test_the_garbage_is_collected_between_the_parts(tasks: QueuedTasks) -> None:
    await tasks.add_task(plain, "first")
    seen: list[bool] = []

    async def look() -> None:
        seen.append(gc.isenabled())

    class Looking:
        def __iter__(self) -> Iterator[str]:
            seen.append(gc.isenabled())
            yield "made"

    with after(1, look):
        await tasks.add_tasks([*specs(), TaskSpec(listed, [Looking()])])
    assert seen[:2] == [True, False]
    assert gc.isenabled()
