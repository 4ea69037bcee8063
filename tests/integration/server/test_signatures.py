"""Who may decide what runs: signatures, and the functions that travel by value under their protection."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta

import asyncpg
import pytest

from queued_tasks import InvalidTask, QueuedTasks, Settings, SignatureError, TaskFailed, TaskRef, TaskSpec
from queued_tasks.runtime.local import TAG
from tests.apps import inside, work
from tests.databases import connected
from tests.servers import Rows, running_server

LIMIT = 30  # seconds
KEY = "a key for tests"


@pytest.fixture
async def signed(database: str) -> AsyncIterator[QueuedTasks]:
    """A handle with the key."""
    async with QueuedTasks.connect(database, settings=Settings(secret_key=KEY)) as tasks:
        yield tasks


@pytest.fixture
async def guarded(database: str) -> AsyncIterator[None]:
    """A server that checks, but for one function."""
    async with running_server(database, secret_key=f"newer, {KEY}", allow_unsigned="tests.apps.inside:give"):
        yield


@pytest.fixture
async def connection(database: str) -> AsyncIterator[asyncpg.Connection]:
    async with connected(database) as connection:
        yield connection


async def refused(ref: TaskRef) -> str:
    """Why a task was refused."""
    with pytest.raises(TaskFailed) as failure:
        await ref.wait(LIMIT)
    assert failure.value.exception_name == "SignatureError"
    return failure.value.exception_message


# ---- what may run


@pytest.mark.usefixtures("guarded")
async def test_what_is_signed_with_an_older_key_runs(signed: QueuedTasks) -> None:
    assert await signed.add_task(work.add, 1, 2).wait(LIMIT) == 3


@pytest.mark.usefixtures("guarded")
async def test_every_option_survives_the_check(signed: QueuedTasks) -> None:
    parent = signed.add_task(inside.give, 1)
    ref = signed.add_task(
        inside.parents,
        parent=parent,
        name="named",
        channel="own",
        key="tenant",
        priority=-3,
        max_retries=1,
        timeout=20.125,
        run_at=datetime.now(UTC) + timedelta(microseconds=123457),
        expires_at=timedelta(days=365 * 5000, microseconds=1),
        unique="once",
        auto_remove=False,
        on_parent_failure="run",
        context={"a": 'quoted "text" \u20ac'},
    )
    assert await ref.wait(LIMIT) == [1]


@pytest.mark.usefixtures("guarded")
async def test_a_retry_with_another_context_runs(signed: QueuedTasks) -> None:
    assert await signed.add_task(inside.fail_once, context={"first": 1}).wait(LIMIT) == {"first": 1, "failed": True}


@pytest.mark.usefixtures("guarded")
async def test_a_child_whose_parent_lost_to_a_unique_task_runs(signed: QueuedTasks) -> None:
    first = signed.add_task(inside.give, "the winner's", unique="once", run_at=inside.soon())
    await first
    second = signed.add_task(inside.give, "the loser's", unique="once")
    assert await signed.add_task(inside.parents, parent=second).wait(LIMIT) == ["the winner's"]


@pytest.mark.usefixtures("guarded")
async def test_what_a_task_adds_is_signed_by_its_server(signed: QueuedTasks) -> None:
    assert await signed.add_task(inside.ask_child, 2, 3).wait(LIMIT) == [5, "done", "done", False]


@pytest.mark.usefixtures("guarded")
async def test_what_a_task_adds_without_a_word_is_signed_too(signed: QueuedTasks, rows: Rows) -> None:
    await signed.add_task(inside.add_quietly).wait(LIMIT)
    assert await rows.value("select count(*) from queued_tasks.task where signature is null") == 0


# ---- what may not


@pytest.mark.usefixtures("guarded")
async def test_an_unsigned_task_is_refused(tasks: QueuedTasks) -> None:
    ref = tasks.add_task(work.add, 1, 2)
    assert "is not signed" in await refused(ref)
    assert [line.level for line in await tasks.get_logs(ref.id)] == ["ERROR"]


@pytest.mark.usefixtures("guarded")
async def test_an_unsigned_task_of_a_function_that_needs_no_signature_runs(tasks: QueuedTasks) -> None:
    assert await tasks.add_task(inside.give, 1).wait(LIMIT) == 1


@pytest.mark.usefixtures("guarded")
async def test_what_is_signed_with_another_key_is_refused(database: str) -> None:
    async with QueuedTasks.connect(database, settings=Settings(secret_key="another")) as tasks:
        assert "a key that is not in QUEUE_SECRET_KEY" in await refused(tasks.add_task(inside.give, 1))


@pytest.mark.parametrize(
    "change",
    [
        "function = 'tests.apps.work:pid', args = '[]'",
        "args = '[1, 3]'",
        """kwargs = '{"b": 3}'""",
        "name = 'other'",
        "channel = 'other'",
        "key = 'other'",
        "priority = 1",
        "max_retries = 9",
        "timeout = 1",
        "run_at = now() - interval '1 day'",
        "expires_at = now() + interval '1 day'",
        "unique_key = 'other'",
        "auto_remove = true",
        "on_parent_failure = 'run'",
        "parents = array[gen_random_uuid()]",
        "parents = array[null]::uuid[]",
        "parents = array[array[id, id]]",
        "expires_at = 'infinity'",
        "run_at = '-infinity'",
        """context = '{"a": 2}'""",
        "executor = 2",
    ],
)
async def test_a_row_altered_by_hand_is_refused(
    signed: QueuedTasks, database: str, connection: asyncpg.Connection, change: str
) -> None:
    ref = signed.add_task(work.add, 1, 2)
    await ref
    await connection.execute(f"update queued_tasks.task set {change}")
    async with running_server(database, secret_key=KEY):
        assert "does not match its signature" in await refused(ref)


async def test_without_a_key_nothing_is_checked(
    signed: QueuedTasks, database: str, connection: asyncpg.Connection
) -> None:
    ref = signed.add_task(work.add, 1, 2)
    await ref
    await connection.execute("update queued_tasks.task set args = '[3, 4]'")
    async with running_server(database):
        assert await ref.wait(LIMIT) == 7


# ---- clones


async def cancelled(tasks: QueuedTasks) -> TaskRef:
    ref = tasks.add_task(inside.give, 1, run_at=timedelta(hours=1))
    await ref.cancel()
    return ref


@pytest.mark.usefixtures("guarded")
async def test_a_clone_is_signed_anew(signed: QueuedTasks) -> None:
    again = await signed.retry_task((await cancelled(signed)).id)
    assert await signed.backend.wait(again.id, LIMIT)
    found = await signed.get_task_by_id(again.id)
    assert found is not None
    assert found.state == "done"


async def test_without_the_key_no_clone_is_made(signed: QueuedTasks, tasks: QueuedTasks) -> None:
    with pytest.raises(SignatureError, match="set the QUEUE_SECRET_KEY"):
        await tasks.retry_task((await cancelled(signed)).id)


async def test_what_was_altered_is_not_cloned(signed: QueuedTasks, connection: asyncpg.Connection) -> None:
    ref = await cancelled(signed)
    await connection.execute("update queued_tasks.task set args = '[2]'")
    with pytest.raises(SignatureError, match="does not match"):
        await signed.retry_task(ref.id)


async def test_what_was_never_signed_is_not_cloned_with_a_signature(signed: QueuedTasks, tasks: QueuedTasks) -> None:
    with pytest.raises(SignatureError, match="is not signed"):
        await signed.retry_task((await cancelled(tasks)).id)


# ---- local functions


@pytest.mark.usefixtures("guarded")
async def test_a_closure_runs(signed: QueuedTasks) -> None:
    factor = 6
    ref = signed.add_task(lambda x: x * factor, 7)
    assert await ref.wait(LIMIT) == 42
    found = await signed.get_task_by_id(ref.id)
    assert found is not None
    assert found.function == "<local>:test_a_closure_runs.<locals>.<lambda>"


@pytest.mark.usefixtures("guarded")
async def test_a_task_adds_a_closure(signed: QueuedTasks) -> None:
    assert await signed.add_task(inside.add_local, 3).wait(LIMIT) == 21


async def test_a_local_function_without_a_key_is_refused_at_the_call(tasks: QueuedTasks) -> None:
    with pytest.raises(InvalidTask, match="QUEUE_SECRET_KEY"):
        tasks.add_task(lambda: 1)
    with pytest.raises(InvalidTask, match="QUEUE_SECRET_KEY"):
        await tasks.add_tasks([TaskSpec(lambda: 1)])


async def test_a_server_without_the_key_does_not_look_into_one(signed: QueuedTasks, database: str) -> None:
    ref = signed.add_task(lambda: 1)
    await ref
    async with running_server(database):
        with pytest.raises(TaskFailed, match=r"InvalidTask: .* set QUEUE_SECRET_KEY for this server"):
            await ref.wait(LIMIT)


async def test_one_of_another_version_of_python_is_refused_with_both(
    signed: QueuedTasks, database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("queued_tasks.runtime.local.TAG", "cpython-399.9999")
    ref = signed.add_task(lambda: 1)
    await ref
    async with running_server(database, secret_key=KEY):
        with pytest.raises(TaskFailed, match=rf"made by cpython-399\.9999, and this worker is {TAG}"):
            await ref.wait(LIMIT)
