"""Bring the schema up to date, once, however many servers start at the same time."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.resources import files

import asyncpg

from ..errors import SchemaOutdated
from .link import CONNECT_TIMEOUT, translate
from .statements import in_schema, load, migrations

NEWEST = max(migrations("queued_tasks"))


async def migrate(dsn: str, *, schema: str = "queued_tasks") -> list[int]:
    """Apply the migrations that the database lacks, all in one transaction; return their numbers.

    Servers that call this at the same time wait for each other and find nothing left to do.

    Raises:
        DatabaseUnavailable: PostgreSQL can't be reached.
    """
    statements = load(schema)
    async with _connection(dsn) as connection, connection.transaction():
        await connection.execute(statements["lock_migrations"])
        applied = await _applied(connection, schema)
        if applied is None:
            await connection.execute(statements["create_schema"])
        missing = [number for number in migrations(schema) if number not in (applied or ())]
        for number in missing:
            name, sql = migrations(schema)[number]
            await connection.execute(sql)
            await connection.execute(statements["record_migration"], number, name)
        return missing


async def check(dsn: str, *, schema: str = "queued_tasks") -> None:
    """Make sure that the database has every migration that this version needs.

    A database that is ahead is fine: a migration only ever adds what the version before can live with.

    Raises:
        SchemaOutdated: it lacks some, or was never migrated.
        DatabaseUnavailable: PostgreSQL can't be reached.
    """
    async with _connection(dsn) as connection:
        applied = await _applied(connection, schema)
    if applied is None:
        raise SchemaOutdated(f'The database has no schema "{schema}" of Queued Tasks: run `queued-tasks migrate`.')
    if missing := [number for number in migrations(schema) if number not in applied]:
        raise SchemaOutdated(
            f'The schema "{schema}" lacks migration {missing[0]} of {NEWEST}: run `queued-tasks migrate`.'
        )


def as_sql(schema: str = "queued_tasks") -> str:
    """Everything that `migrate` runs on a new database, as one script for psql."""
    parts = [load(schema)["create_schema"]]
    record = load(schema)["record_migration"].splitlines()[-1]
    for number, (name, sql) in migrations(schema).items():
        parts.append(f"-- {number:04} {name}\n{sql}")
        parts.append(record.replace("$1", str(number)).replace("$2", f"'{name}'") + ";\n")
    return "begin;\n\n" + "\n".join(parts) + "\ncommit;\n"


def roles_sql(schema: str = "queued_tasks") -> str:
    """The script that makes the least-privileged roles: see roles.sql."""
    return in_schema((files(__package__) / "roles.sql").read_text(encoding="utf-8"), schema)


async def _applied(connection: asyncpg.Connection, schema: str) -> set[int] | None:
    statements = load(schema)
    if not await connection.fetchval(statements["has_schema"]):
        return None
    return {row["version"] for row in await connection.fetch(statements["applied_migrations"])}


@asynccontextmanager
async def _connection(dsn: str) -> AsyncIterator[asyncpg.Connection]:
    try:
        # no cache: behind a pooler a prepared statement may be somebody else's
        connection = await asyncpg.connect(dsn, timeout=CONNECT_TIMEOUT, statement_cache_size=0)
        try:
            yield connection
        finally:
            await connection.close(timeout=CONNECT_TIMEOUT)
    except Exception as error:
        meaning = translate(error)
        if meaning is None:
            raise
        raise meaning from error
