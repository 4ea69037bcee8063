"""The databases that other tests get."""

from __future__ import annotations

import asyncpg
import pytest

from tests.databases import connected, ensure_template, fresh_database, with_database


async def schemas(dsn: str) -> set[str]:
    async with connected(dsn) as connection:
        return {row["nspname"] for row in await connection.fetch("select nspname from pg_namespace")}


async def test_a_database_has_the_schema(database: str) -> None:
    assert "queued_tasks" in await schemas(database)


async def test_an_empty_database_has_no_schema(empty_database: str) -> None:
    assert "queued_tasks" not in await schemas(empty_database)


async def test_what_is_made_in_one_database_is_not_in_the_next(postgres: str, template: str, database: str) -> None:
    async with connected(database) as connection:
        await connection.execute("create schema only_here")
    async with fresh_database(postgres, template=template) as other:
        assert "only_here" not in await schemas(other)


async def test_a_database_is_dropped_while_somebody_is_connected(postgres: str) -> None:
    async with fresh_database(postgres) as dsn:
        connection = await asyncpg.connect(dsn)
    with pytest.raises(asyncpg.InvalidCatalogNameError):
        await asyncpg.connect(dsn)
    connection.terminate()


async def test_a_template_left_half_done_is_made_anew(postgres: str, template: str) -> None:
    async with connected(postgres) as connection:
        await connection.execute("create database template_draft")
        await ensure_template(postgres, "template_new")
        async with fresh_database(postgres, template="template_new") as dsn:
            assert "queued_tasks" in await schemas(dsn)
        await connection.execute("drop database template_new")


async def test_nobody_can_spoil_the_template(postgres: str, template: str) -> None:
    with pytest.raises(asyncpg.ObjectNotInPrerequisiteStateError):
        await asyncpg.connect(with_database(postgres, template))
