"""Enqueue against PostgreSQL: what is written, when, and once."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any
from unittest.mock import patch
from uuid import UUID

import asyncpg
import pytest

from queued_tasks.runtime.errors import (
    InvalidState,
    InvalidTask,
    SerializationError,
)
from queued_tasks.runtime.functions import task
from queued_tasks.runtime.handles import QueuedTasks
from queued_tasks.runtime.hooks import HookTask, on_post_create, on_pre_create
from queued_tasks.runtime.settings import Settings
from queued_tasks.runtime.store.tasks import TaskStore
from queued_tasks.runtime.task import NewTask, Task, TaskSpec, TaskState
from tests.enqueued import count
from tests.waiting import wait_until


async def send(to: str, copies: int = 1) -> None: ...


def plain(value: Any) -> None: ...


def named(name: str, priority: int = 0) -> None: ...


@task(channel="mail", priority=7, max_retries=1, timeout=5, auto_remove=True, name="letter")
async def declared(to: str) -> None: ...


@task(unique=True)
async def only(to: str) -> None: ...


@pytest.fixture
def statements() -> Iterator[list[int]]:
    """The size of each batch that goes to the database."""
    sizes: list[int] = []
    add = TaskStore.add

    async def counted(self: TaskStore, tasks: list[NewTask], *, repeat: bool = False) -> dict[UUID, UUID]:
        sizes.append(len(tasks))
        return await add(self, tasks, repeat=repeat)

    with patch.object(TaskStore, "add", counted):
        yield sizes


async def kept(tasks: QueuedTasks, id: UUID) -> Task:
    found = await tasks.get_task_by_id(id)
    assert found is not None
    return found


async def test_an_awaited_task_is_in_the_database(tasks: QueuedTasks, rows: asyncpg.Connection) -> None:
    ref = tasks.add_task(send, "a@b.c", copies=2)
    id = await ref
    row = await rows.fetchrow("select id, function, args, kwargs from queued_tasks.task")
    assert tuple(row) == (id, "tests.integration.test_enqueue:send", '["a@b.c"]', '{"copies":2}')


async def test_a_task_that_nobody_awaits_is_written_at_the_end_of_the_turn(
    tasks: QueuedTasks, rows: asyncpg.Connection
) -> None:
    tasks.add_task(send, "a@b.c")

    async def is_there() -> bool:
        return await count(rows) == 1

    await wait_until(is_there)


async def test_leaving_connect_writes_what_is_left(database: str, rows: asyncpg.Connection) -> None:
    async with QueuedTasks.connect(database) as tasks:
        tasks.add_task(send, "a@b.c")
    assert await count(rows) == 1


async def test_a_closed_handle_says_so(database: str) -> None:
    async with QueuedTasks.connect(database) as tasks:
        pass
    with pytest.raises(InvalidState, match="before you leave"):
        tasks.add_task(send, "a@b.c")


async def test_another_thread_may_add_tasks(tasks: QueuedTasks, rows: asyncpg.Connection) -> None:
    thread = threading.Thread(target=lambda: [tasks.add_task(plain, number) for number in range(50)])
    thread.start()
    await asyncio.to_thread(thread.join)
    await tasks.flush()
    assert await count(rows) == 50


async def test_a_ref_is_provisional_until_it_is_written(tasks: QueuedTasks) -> None:
    ref = tasks.add_task(send, "a@b.c")
    before = ref.created
    await ref
    assert (before, ref.created) == (None, True)


async def test_options_are_stored(tasks: QueuedTasks) -> None:
    later = datetime.now(UTC) + timedelta(hours=1)
    ref = tasks.add_task(
        send,
        "a",
        name="hello",
        channel="mail",
        priority=-5,
        max_retries=0,
        timeout=timedelta(seconds=9),
        run_at=later,
        unique="one",
        auto_remove=True,
        context={"a": {"b": 1}},
    )
    found = await kept(tasks, await ref)
    assert (found.name, found.channel, found.priority, found.max_retries) == ("hello", "mail", -5, 0)
    assert (found.timeout, found.run_at, found.unique_key) == (timedelta(seconds=9), later, "one")
    assert (found.auto_remove, found.context) == (True, {"a": {"b": 1}})


async def test_what_is_not_given_is_up_to_the_function(tasks: QueuedTasks) -> None:
    found = await tasks.add_task_async(declared, "a")
    assert (found.name, found.channel, found.priority, found.max_retries) == ("letter", "mail", 7, 1)
    assert (found.timeout, found.auto_remove) == (timedelta(seconds=5), True)


async def test_what_the_function_does_not_say_is_up_to_the_settings(database: str) -> None:
    settings = Settings(max_retries=9, task_timeout=77)
    async with QueuedTasks.connect(database, settings=settings) as tasks:
        found = await tasks.add_task_async(plain, 1)
    assert (found.max_retries, found.timeout) == (9, timedelta(seconds=77))


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("priority", 40_000),
        ("priority", "high"),
        ("channel", ""),
        ("channel", 3),
        ("max_retries", -1),
        ("timeout", 0),
        ("run_at", datetime(2030, 1, 1)),  # the lack of a time zone is the point
        ("run_at", 30),
        ("run_at", timedelta.max),
        ("expires_at", "tomorrow"),
        ("unique", 5),
        ("auto_remove", "yes"),
        ("on_parent_failure", "explode"),
        ("context", ["a"]),
        ("key", "a\0b"),
        ("parent", "a name"),
    ],
)
async def test_a_bad_option_is_named(tasks: QueuedTasks, option: str, value: object) -> None:
    bad: dict[str, Any] = {option: value}
    with pytest.raises(InvalidTask, match=option):
        tasks.add_task(plain, 1, **bad)


@pytest.mark.parametrize("options", [{}, {"name": "a name"}])
async def test_what_has_no_hash_is_refused_like_any_other_object(tasks: QueuedTasks, options: dict[str, Any]) -> None:
    given: Any = ["no function"]
    with pytest.raises(InvalidTask, match="a list is not callable"):
        tasks.add_task(given, **options)


async def test_a_wrong_call_is_told_by_the_name_of_the_handle(tasks: QueuedTasks) -> None:
    wrong: Any = tasks
    for call in (wrong.add_task, wrong.get_task_by_id):
        with pytest.raises(TypeError, match=rf"^QueuedTasks\.{call.__name__}\(\)"):
            call()


async def test_an_unknown_option_of_a_spec_is_named(tasks: QueuedTasks) -> None:
    with pytest.raises(InvalidTask, match="'priorty' is no option"):
        await tasks.add_tasks([TaskSpec(plain, [1], priorty=3)])


async def test_an_option_that_is_also_a_parameter_is_refused_with_the_cure(tasks: QueuedTasks) -> None:
    with pytest.raises(InvalidTask, match="task_kwargs="):
        tasks.add_task(named, name="who?")


async def test_task_kwargs_reach_the_function_and_options_the_task(tasks: QueuedTasks) -> None:
    found = await kept(tasks, await tasks.add_task(named, name="the task", task_kwargs={"name": "the argument"}))
    assert (found.name, found.kwargs) == ("the task", {"name": "the argument"})


async def test_what_cannot_be_encoded_leaves_nothing_behind(tasks: QueuedTasks, rows: asyncpg.Connection) -> None:
    with pytest.raises(SerializationError, match="'to'"):
        tasks.add_task(send, object())
    await tasks.flush()
    assert await count(rows) == 0


async def test_a_unique_task_stands_for_the_second_one(tasks: QueuedTasks) -> None:
    first = tasks.add_task(send, "a", unique="key")
    second = tasks.add_task(send, "b", unique="key")
    await second
    assert (first.created, second.created, second.id) == (True, False, first.id)


async def test_of_a_batch_of_equal_calls_of_a_unique_function_one_stands(tasks: QueuedTasks) -> None:
    refs = await tasks.add_tasks([TaskSpec(only, ["a"]), TaskSpec(only, ["b"]), TaskSpec(only, ["a"])])
    assert [ref.created for ref in refs] == [True, True, False]
    assert refs[2].id == refs[0].id


async def test_unique_true_means_the_same_call_however_it_is_spelt(tasks: QueuedTasks) -> None:
    first = await tasks.add_task(send, "a", 2, unique=True)
    same = await tasks.add_task(send, copies=2, to="a", unique=True)
    other = await tasks.add_task(send, "a", 3, unique=True)
    assert (same == first, other == first) == (True, False)


async def test_a_child_of_a_unique_loser_waits_for_the_winner(tasks: QueuedTasks) -> None:
    winner = await tasks.add_task(send, "a", unique="key")
    loser = tasks.add_task(send, "b", unique="key")
    child = await kept(tasks, await tasks.add_task(plain, 1, parent=loser))
    assert (child.parents, child.state) == ([winner], TaskState.WAITING)


async def test_a_whole_graph_goes_out_in_one_statement(tasks: QueuedTasks, statements: list[int]) -> None:
    parents = [tasks.add_task(plain, number) for number in range(3)]
    child = await kept(tasks, await tasks.add_task(plain, "child", parent=parents))
    assert (child.parents, child.state) == ([ref.id for ref in parents], TaskState.WAITING)
    assert statements == [4]


async def test_a_parent_from_another_handle_is_written_first(database: str, tasks: QueuedTasks) -> None:
    async with QueuedTasks.connect(database) as other:
        parent = other.add_task(plain, 1)
        child = await kept(tasks, await tasks.add_task(plain, 2, parent=parent))
        assert (parent.created, child.state) == (True, TaskState.WAITING)


async def test_concurrent_awaits_share_statements(tasks: QueuedTasks, statements: list[int]) -> None:
    async def one(number: int) -> None:
        await tasks.add_task(plain, number)

    await asyncio.gather(*(one(number) for number in range(200)))
    assert sum(statements) == 200
    assert len(statements) < 20


async def test_clients_that_await_one_task_after_the_other_go_on_sharing_statements(
    tasks: QueuedTasks, statements: list[int]
) -> None:
    async def client(number: int) -> None:
        for each in range(20):
            await tasks.add_task(plain, 20 * number + each)

    await asyncio.gather(*(client(number) for number in range(16)))
    assert sum(statements) == 320
    assert len(statements) < 160


async def test_add_tasks_writes_all_or_nothing(tasks: QueuedTasks, rows: asyncpg.Connection) -> None:
    with pytest.raises(SerializationError):
        await tasks.add_tasks([TaskSpec(send, ["a"]), TaskSpec(send, [object()])])
    assert await count(rows) == 0


async def test_add_tasks_returns_a_ref_for_each_in_order(tasks: QueuedTasks) -> None:
    refs = await tasks.add_tasks(TaskSpec(plain, [number], priority=number) for number in range(5))
    assert [(await kept(tasks, ref.id)).priority for ref in refs] == [0, 1, 2, 3, 4]


async def test_the_functions_of_add_tasks_may_take_turns(tasks: QueuedTasks) -> None:
    specs = [
        TaskSpec(send, ["a"]),
        TaskSpec(send, ["b"], channel="other"),
        TaskSpec(declared, ["c"]),
        TaskSpec(send, ["d"], {"copies": 2}),
        TaskSpec(send, ["e"]),
        TaskSpec(declared, ["f"], priority=1),
    ]
    found = [await kept(tasks, ref.id) for ref in await tasks.add_tasks(specs)]
    assert [(task.name, task.channel, task.priority, task.args, task.kwargs) for task in found] == [
        ("send", "default", 0, ["a"], {}),
        ("send", "other", 0, ["b"], {}),
        ("letter", "mail", 7, ["c"], {}),
        ("send", "default", 0, ["d"], {"copies": 2}),
        ("send", "default", 0, ["e"], {}),
        ("letter", "mail", 1, ["f"], {}),
    ]


async def test_a_pre_create_hook_changes_the_context(tasks: QueuedTasks) -> None:
    @on_pre_create
    async def tag(task: HookTask) -> None:
        task.context["by"] = task.name

    try:
        found = await tasks.add_task_async(send, "a", context={"kept": 1})
    finally:
        on_pre_create.remove(tag)
    assert found.context == {"kept": 1, "by": "send"}


async def test_a_sync_pre_create_hook_refuses_at_the_call(tasks: QueuedTasks) -> None:
    @on_pre_create
    def refuse(task: HookTask) -> None:
        raise PermissionError(task.args[0])

    try:
        with pytest.raises(PermissionError, match="not this"):
            tasks.add_task(plain, "not this")
    finally:
        on_pre_create.remove(refuse)


async def test_an_async_pre_create_hook_refuses_at_the_write_and_only_its_task(
    tasks: QueuedTasks, rows: asyncpg.Connection
) -> None:
    @on_pre_create
    async def refuse(task: HookTask) -> None:
        if task.args == ["bad"]:
            raise PermissionError("refused")

    try:
        good, bad = tasks.add_task(plain, "good"), tasks.add_task(plain, "bad")
        await good
        with pytest.raises(PermissionError):
            await bad
    finally:
        on_pre_create.remove(refuse)
    assert await count(rows) == 1


async def test_a_hook_that_awaits_its_own_handle_is_told_so(tasks: QueuedTasks) -> None:
    @on_pre_create
    async def wait_for_ever(task: HookTask) -> None:
        await tasks.flush()

    try:
        with pytest.raises(InvalidState, match="without await"):
            await tasks.add_task(plain, 1)
    finally:
        on_pre_create.remove(wait_for_ever)


async def test_post_create_hooks_run_after_the_write_and_their_errors_do_not_matter(
    tasks: QueuedTasks, rows: asyncpg.Connection
) -> None:
    seen: list[int] = []

    @on_post_create
    async def look(task: HookTask) -> None:
        seen.append(await count(rows))
        raise ValueError("nobody minds")

    try:
        await tasks.add_task(plain, 1)
    finally:
        on_post_create.remove(look)
    assert seen == [1]


async def test_servers_are_told_which_lane_has_new_tasks(database: str, tasks: QueuedTasks) -> None:
    heard: asyncio.Queue[str] = asyncio.Queue()
    listener = await asyncpg.connect(database)
    await listener.add_listener("queue_new_task.queued_tasks", lambda *message: heard.put_nowait(message[3]))
    await tasks.add_tasks([TaskSpec(plain, [number]) for number in range(3)])
    lane = await listener.fetchval("select id from queued_tasks.lane")
    async with asyncio.timeout(20):
        assert (await heard.get()).split(" ")[0] == f"{lane}:3"
        await tasks.add_task(plain, 4, run_at=timedelta(hours=1))
        assert await heard.get() == "delayed"
    await listener.close()


async def test_servers_are_told_of_a_child_whose_parent_may_have_ended(database: str, tasks: QueuedTasks) -> None:
    heard: asyncio.Queue[str] = asyncio.Queue()
    listener = await asyncpg.connect(database)
    await listener.add_listener("queue_new_task.queued_tasks", lambda *message: heard.put_nowait(message[3]))
    async with asyncio.timeout(20):
        parent = await tasks.add_task(plain, 0)
        lane = (await heard.get()).split(":")[0]
        await tasks.chain(TaskSpec(plain, [1], parent=parent), TaskSpec(plain, [2]))
        assert (await heard.get()).split(" ")[0] == f"{lane}:1"
    await listener.close()
