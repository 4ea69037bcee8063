"""Migrating: once, by whoever comes first, under any name, and saying what is wrong when it can't be done."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from importlib.resources import files
from uuid import uuid4

import pytest

from queued_tasks.runtime import store
from queued_tasks.runtime.errors import ConfigurationError, SchemaOutdated
from queued_tasks.runtime.store.lanes import Lanes
from queued_tasks.runtime.store.link import Link
from queued_tasks.runtime.store.migrate import NEWEST, as_sql, check, migrate
from queued_tasks.runtime.store.tasks import TaskStore
from tests.databases import connected
from tests.store import new_task

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
    select 'relation', relname, relkind::text || relpersistence::text || coalesce(reloptions::text, '')
      from pg_class where relnamespace = $1::regnamespace
    order by 1, 2, 3
"""


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
