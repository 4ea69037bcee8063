"""The least-privileged roles: what each may do, with real logins, and what it may not."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from uuid import uuid4

import asyncpg
import pytest

from queued_tasks import QueuedTasks
from queued_tasks.runtime.store.link import Link
from queued_tasks.runtime.store.migrate import roles_sql
from queued_tasks.runtime.store.reads import Reads
from tests.apps import work
from tests.command import queued_tasks
from tests.databases import connected
from tests.servers import running_server

LIMIT = 60  # seconds
Login = Callable[[str], str]


@pytest.fixture
async def login(database: str) -> AsyncIterator[Login]:
    """Gives the DSN of a fresh user with a role, in a database whose owner has run the script, twice."""
    users: list[str] = []
    async with connected(database) as owner:
        for _ in range(2):
            await owner.execute(roles_sql())
        made = {role: f"user_{uuid4().hex}" for role in ("enqueuer", "server", "dashboard", "nobody")}
        for role, user in made.items():
            await owner.execute(f"create role {user} login")
            users.append(user)
            if role != "nobody":
                await owner.execute(f"grant queued_tasks_{role} to {user}")
    yield lambda role: re.sub(r"//[^@/]*@", f"//{made[role]}@", database, count=1)
    async with connected(database) as owner:
        for user in users:
            await owner.execute(f"drop role {user}")


@asynccontextmanager
async def refused(dsn: str) -> AsyncIterator[asyncpg.Connection]:
    async with connected(dsn) as connection:
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            yield connection


async def test_the_command_prints_the_script(login: Login) -> None:
    ran = await queued_tasks("migrate", "--roles", QUEUE_SCHEMA="other")
    assert (ran.code, ran.out) == (0, roles_sql("other"))
    assert 'grant usage on schema "other" to queued_tasks_enqueuer' in ran.out


async def test_the_enqueuer_adds_and_a_server_of_its_role_runs(login: Login) -> None:
    async with (
        running_server(login("server")),
        QueuedTasks.connect(login("enqueuer")) as tasks,
        connected(login("enqueuer")) as connection,
    ):
        assert await tasks.add_task(work.add, 1, 2).wait(LIMIT) == 3
        parent = tasks.add_task(work.add, 1, 2, unique="k")
        removed = tasks.add_task(work.add_plainly, 2, 3, parent=parent, auto_remove=True)
        assert await removed.wait(LIMIT) == 5
        assert await tasks.get_task_by_id(removed.id) is None
        await tasks.backend.note(parent.id, "a hook failed", "Traceback ...")
        assert [line.message for line in await tasks.get_logs(parent.id)] == ["a hook failed"]
        async with connection.transaction():
            posted = tasks.on(connection).add_task(work.add, 3, 4)
            await posted
        assert await posted.wait(LIMIT) == 7
        id = await connection.fetchval("select queued_tasks.enqueue('tests.apps.work:add', '[4, 5]')")
        async for update in tasks.watch(id):
            last = update
        assert last.task.result == 9
        late = tasks.add_task(work.add, 1, 2, run_at=last.task.created_at.replace(year=2100))
        await late
        assert await tasks.cancel_task(late.id)
        assert (await tasks.retry_task(late.id)).name == "add_retry"
        assert len(await tasks.list_tasks()) >= 5
        assert await tasks.get_pending_tasks_count() >= 0


@pytest.mark.parametrize(
    "statement",
    [
        "insert into queued_tasks.result (id, state, attempt) values (gen_random_uuid(), 'done', 1)",
        "insert into queued_tasks.task select * from queued_tasks.task",
        "update queued_tasks.task set function = 'os:system'",
        "delete from queued_tasks.task",
        "delete from queued_tasks.bundle",
        "delete from queued_tasks.heartbeat",
        "select queued_tasks.remove_tasks('{}')",
        "select * from queued_tasks.promote_inbox(1)",
        "select queued_tasks.clear_tasks(null, null, 1)",
        "truncate queued_tasks.task",
        "drop table queued_tasks.task",
    ],
)
async def test_the_enqueuer_may_not(login: Login, statement: str) -> None:
    async with refused(login("enqueuer")) as connection:
        await connection.execute(statement)


@pytest.mark.parametrize(
    "statement",
    [
        "insert into queued_tasks.migration (version, name) values (999, 'x')",
        "truncate queued_tasks.task",
        "drop function queued_tasks.claim",
        "alter table queued_tasks.task add column x integer",
        "create table queued_tasks.x ()",
    ],
)
async def test_the_server_may_not(login: Login, statement: str) -> None:
    async with refused(login("server")) as connection:
        await connection.execute(statement)


async def test_the_dashboard_reads(login: Login, database: str) -> None:
    async with QueuedTasks.connect(database) as tasks:
        ref = tasks.add_task(work.add, 1, 2)
        await ref
    link = Link(login("dashboard"), "queued_tasks", name="dashboard")
    reads = Reads(link)
    task = await reads.task(ref.id)
    assert task is not None
    assert task.args == [1, 2]
    assert [it.id for it in await reads.tasks(state=None, name=None, channel=None, before=None, limit=9)] == [ref.id]
    assert (await reads.counts())["enqueued"] == await reads.pending() == 1
    assert (await reads.logs(ref.id, after=None, limit=9), [*await reads.servers()]) == ([], [])
    assert (await reads.ends([ref.id]))[ref.id]["known"]
    await link.close()


async def test_the_dashboard_asks_what_goes_on_and_why(login: Login, database: str) -> None:
    async with QueuedTasks.connect(database) as tasks:
        id = await tasks.add_task(work.add, 1, 2, channel="mail")
    await queued_tasks("channels", "set", "mail", "@1/min", database=database)
    for command in (("why", id), ("top",), ("servers",), ("channels",), ("status",)):
        ran = await queued_tasks(*command, "--json", database=login("dashboard"))
        assert (ran.code, ran.err) == (0, "")
    found = (await queued_tasks("doctor", "--json", database=login("dashboard"))).json["findings"]
    assert [each["check"] for each in found] == ["servers", "rights"]


@pytest.mark.parametrize(
    "statement",
    [
        "select queued_tasks.enqueue('a:f')",
        "select queued_tasks.cancel(gen_random_uuid())",
        "select queued_tasks.post_tasks('[]')",
        "select queued_tasks.direct_servers('{}', 'stop', null)",
        "select * from queued_tasks.cancel_tasks('{}', '')",
        "delete from queued_tasks.task",
        "insert into queued_tasks.waiter (task_id, topic) values (gen_random_uuid(), 'x')",
    ],
)
async def test_the_dashboard_may_not(login: Login, statement: str) -> None:
    async with refused(login("dashboard")) as connection:
        await connection.execute(statement)


@pytest.mark.parametrize("statement", ["select * from queued_tasks.task", "select queued_tasks.enqueue('a:f')"])
async def test_whoever_has_none_of_the_roles_may_nothing(login: Login, statement: str) -> None:
    async with refused(login("nobody")) as connection:
        await connection.execute(statement)
