"""Migrating: once, by whoever comes first, under any name, and saying what is wrong when it can't be done."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Callable
from importlib.resources import files
from uuid import uuid4

import asyncpg
import pytest

from queued_tasks.runtime import store
from queued_tasks.runtime.errors import ConfigurationError, SchemaOutdated
from queued_tasks.runtime.store.lanes import Lanes
from queued_tasks.runtime.store.link import Link
from queued_tasks.runtime.store.migrate import NEWEST, as_sql, check, migrate
from queued_tasks.runtime.store.statements import migrations
from queued_tasks.runtime.store.tasks import TaskStore
from tests.databases import connected
from tests.store import Store, new_task
from tests.waiting import wait_until

CATALOG = """
    select 'column', table_name,
           column_name || ' ' || data_type || ' ' || is_nullable || ' ' || coalesce(column_default, '')
      from information_schema.columns where table_schema = $1
    union all
    select 'constraint', conrelid::regclass::text, conname || ' ' || pg_get_constraintdef(oid)
      from pg_constraint where connamespace = $1::regnamespace
    union all
    select 'index', tablename, indexdef from pg_indexes where schemaname = $1
    union all
    select 'function', proname, pg_get_functiondef(oid) from pg_proc where pronamespace = $1::regnamespace
    union all
    select 'view', viewname, definition from pg_views where schemaname = $1
    union all
    select 'enum', enumtypid::regtype::text, enumsortorder || ' ' || enumlabel
      from pg_enum join pg_type t on t.oid = enumtypid where t.typnamespace = $1::regnamespace
    union all
    select 'comment', c.oid::regclass::text, objsubid || ' ' || description
      from pg_description join pg_class c on c.oid = objoid and c.relnamespace = $1::regnamespace
    union all
    select 'relation', relname, relkind::text || relpersistence::text || coalesce(reloptions::text, '')
      from pg_class where relnamespace = $1::regnamespace
    order by 1, 2, 3
"""

WAITS_FOR_TASK = "select exists (select from pg_locks where relation = 'queued_tasks.task'::regclass and not granted)"


async def _catalog(dsn: str, schema: str) -> list[str]:
    """All that is in the schema, as text in which the schema is called S."""
    async with connected(dsn) as connection:
        rows = await connection.fetch(CATALOG, schema)
    return [re.sub(rf'"?\b{schema}\b"?', "S", " ".join(row)) for row in rows]


async def test_eight_at_once_migrate_once(empty_database: str) -> None:
    applied = await asyncio.gather(*(migrate(empty_database) for _ in range(8)))
    assert sorted(map(len, applied)) == [0] * 7 + [NEWEST]


def test_each_migration_has_a_number_of_its_own() -> None:
    names = [entry.name for entry in (files(store) / "migrations").iterdir() if entry.name.endswith(".sql")]
    assert sorted(int(name[:4]) for name in names) == [*range(1, NEWEST + 1)]


async def test_a_second_run_finds_nothing_to_do(database: str) -> None:
    assert await migrate(database) == []


async def test_the_script_makes_what_migrate_makes(database: str, empty_database: str) -> None:
    async with connected(empty_database) as connection:
        await connection.execute(as_sql())
    assert await _catalog(empty_database, "queued_tasks") == await _catalog(database, "queued_tasks")


async def test_a_database_made_by_the_script_needs_no_migration(empty_database: str) -> None:
    async with connected(empty_database) as connection:
        await connection.execute(as_sql())
    assert await migrate(empty_database) == []
    await check(empty_database)


async def test_another_schema_holds_the_same(database: str) -> None:
    await migrate(database, schema="other_tasks")
    assert await _catalog(database, "other_tasks") == await _catalog(database, "queued_tasks")


async def test_two_schemas_of_one_database_know_nothing_of_each_other(database: str) -> None:
    await migrate(database, schema="other_tasks")
    link = Link(database, "other_tasks", name="test")
    try:
        await TaskStore(link).add([new_task()])
    finally:
        await link.close()
    async with connected(database) as connection:
        assert await connection.fetchval("select count(*) from other_tasks.ready") == 1
        assert await connection.fetchval("select count(*) from queued_tasks.task") == 0


async def test_a_name_that_needs_quotes_works(empty_database: str) -> None:
    await migrate(empty_database, schema="order")
    link = Link(empty_database, "order", name="test")
    try:
        lanes = Lanes(link)
        await lanes.ensure([new_task()])
    finally:
        await link.close()
    assert [lane.channel for lane in lanes] == ["default"]


async def test_a_database_without_the_schema_is_outdated(empty_database: str) -> None:
    with pytest.raises(SchemaOutdated, match=r'no schema "queued_tasks".*queued-tasks migrate'):
        await check(empty_database)


async def test_a_database_that_lacks_a_migration_is_outdated(database: str) -> None:
    async with connected(database) as connection:
        await connection.execute("delete from queued_tasks.migration where version = $1", NEWEST)
    with pytest.raises(SchemaOutdated, match=rf"lacks migration {NEWEST} of {NEWEST}.*queued-tasks migrate"):
        await check(database)


async def test_a_database_that_is_ahead_is_fine(database: str) -> None:
    async with connected(database) as connection:
        await connection.execute("insert into queued_tasks.migration (version, name) values ($1, 'later')", NEWEST + 1)
    await check(database)
    assert await migrate(database) == []


async def test_a_failed_migration_leaves_nothing_behind(empty_database: str) -> None:
    async with connected(empty_database) as connection:
        await connection.execute("create schema queued_tasks; create table queued_tasks.task ()")
        with pytest.raises(Exception, match="already exists"):
            await migrate(empty_database)
        tables = await connection.fetch("select tablename from pg_tables where schemaname = 'queued_tasks'")
    assert [row[0] for row in tables] == ["task"]


@pytest.fixture
def newer(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Lets the code know these migrations on top."""

    def know(*scripts: str) -> None:
        added = {number: (f"later_{number}", sql) for number, sql in enumerate(scripts, NEWEST + 1)}
        monkeypatch.setattr(
            "queued_tasks.runtime.store.migrate.migrations", lambda schema: {**migrations(schema), **added}
        )

    return know


EXPAND = "alter table queued_tasks.task add column later text"


async def test_a_failed_migration_takes_those_before_it_along(database: str, newer: Callable[..., None]) -> None:
    before = await _catalog(database, "queued_tasks")
    newer(EXPAND, "select 1 / 0")
    with pytest.raises(asyncpg.DivisionByZeroError):
        await migrate(database)
    assert await _catalog(database, "queued_tasks") == before


async def test_many_at_once_add_what_is_new_once(database: str, newer: Callable[..., None]) -> None:
    newer(EXPAND)
    applied = await asyncio.gather(*(migrate(database) for _ in range(4)))
    assert sorted(applied) == [[], [], [], [NEWEST + 1]]


async def test_a_long_transaction_holds_up_the_migration_and_nobody_else(
    store: Store, newer: Callable[..., None]
) -> None:
    newer(EXPAND)
    long = await store.another()
    await long.begin()
    await long.count("task")
    migrating = asyncio.create_task(migrate(store.dsn))
    for _ in range(2):
        await wait_until(lambda: store.value(WAITS_FOR_TASK))
        await store.one()
        (claimed,) = await store.run(await store.server())
        assert await store.state(claimed) == "done"
    assert not migrating.done()
    await long.commit()
    assert await migrating == [NEWEST + 1]


async def test_a_migration_that_gets_no_lock_names_the_session_that_holds_it(
    store: Store, newer: Callable[..., None]
) -> None:
    newer(EXPAND)
    await store.begin()
    await store.count("task")
    pid = store.session.connection.get_server_pid()
    with pytest.raises(SchemaOutdated, match=rf"the session {pid} \(idle in transaction, for \d+ s\).*end that"):
        await migrate(store.dsn, patience=0)


async def test_a_migration_that_gets_no_lock_leaves_nothing_behind(store: Store, newer: Callable[..., None]) -> None:
    before = await _catalog(store.dsn, "queued_tasks")
    newer("create table queued_tasks.later ()", EXPAND)
    await store.begin()
    await store.count("task")
    with pytest.raises(SchemaOutdated):
        await migrate(store.dsn, patience=0)
    assert await _catalog(store.dsn, "queued_tasks") == before


async def test_newer_code_takes_no_older_schema(database: str, newer: Callable[..., None]) -> None:
    newer(EXPAND)
    with pytest.raises(SchemaOutdated, match=rf"lacks migration {NEWEST + 1} of {NEWEST + 1}.*queued-tasks migrate"):
        await check(database)


async def test_transactions_that_begin_otherwise_than_read_committed_are_refused(database: str) -> None:
    mark = "&" if "?" in database else "?"
    with pytest.raises(ConfigurationError, match=r'"repeatable read".*needs "read committed": add'):
        await check(f"{database}{mark}default_transaction_isolation=repeatable%20read")
    await check(f"{database}{mark}default_transaction_isolation=read%20committed")


async def test_a_call_without_the_schema_says_how_to_make_it(empty_database: str) -> None:
    link = Link(empty_database, "queued_tasks", name="test")
    try:
        with pytest.raises(SchemaOutdated, match="queued-tasks migrate"):
            await Lanes(link).refresh()
    finally:
        await link.close()


@pytest.fixture
async def powerless(empty_database: str) -> AsyncIterator[str]:
    """The DSN of the same database for a user who may do nothing there."""
    role = f"powerless_{uuid4().hex}"
    async with connected(empty_database) as connection:
        await connection.execute(f"create role {role}")
        yield f"{empty_database}{'&' if '?' in empty_database else '?'}role={role}"
        await connection.execute(f"drop role {role}")


async def test_a_user_who_may_create_nothing_is_told_so(powerless: str) -> None:
    with pytest.raises(ConfigurationError, match="lacks a right"):
        await migrate(powerless)


async def test_a_user_who_may_not_look_into_the_schema_is_told_so(empty_database: str, powerless: str) -> None:
    await migrate(empty_database)
    with pytest.raises(ConfigurationError, match="lacks a right"):
        await check(powerless)


async def test_a_user_who_may_not_use_the_tables_is_told_so(empty_database: str, powerless: str) -> None:
    await migrate(empty_database)
    link = Link(powerless, "queued_tasks", name="test")
    try:
        with pytest.raises(ConfigurationError, match="lacks a right"):
            await Lanes(link).refresh()
    finally:
        await link.close()
