"""Bring the schema up to date, once, however many servers start at the same time."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.resources import files

import asyncpg
from loguru import logger

from ..errors import ConfigurationError, SchemaOutdated
from .link import CONNECT_TIMEOUT, translate
from .statements import in_schema, load, migrations

NEWEST = max(migrations("queued_tasks"))

_IN_THE_WAY = (asyncpg.LockNotAvailableError, asyncpg.DeadlockDetectedError)
_LONGEST_PAUSE = 5.0  # seconds between two tries


async def migrate(dsn: str, *, schema: str = "queued_tasks", patience: float = 60.0) -> list[int]:
    """Apply the migrations that the database lacks, all in one transaction; return their numbers.

    Servers that call this at the same time wait for each other and find nothing left to do. For a table that somebody's
    transaction keeps locked this waits two seconds, because all that came after has to wait, too; then everything is
    undone and tried again, for `patience` seconds in all.

    Raises:
        SchemaOutdated: a table stayed locked; the text names the session that holds the lock.
        DatabaseUnavailable: PostgreSQL can't be reached.
    """
    end = time.monotonic() + patience
    pause = 0.5
    async with _connection(dsn) as connection:
        while True:
            try:
                return await _apply(connection, schema)
            except _IN_THE_WAY as error:
                holder = await _holder(connection, schema)
                if time.monotonic() + pause > end:
                    raise SchemaOutdated(
                        f'The schema "{schema}" could not be migrated, {holder} keeps its tables locked: '
                        "end that transaction, or run `queued-tasks migrate` again later."
                    ) from error
                logger.info("waiting to migrate: {} keeps tables locked", holder)
            await asyncio.sleep(pause)
            pause = min(pause * 2, _LONGEST_PAUSE)


async def check(dsn: str, *, schema: str = "queued_tasks") -> None:
    """Make sure that the database has every migration that this version needs.

    A database that is ahead is fine: a migration only ever adds what the version before can live with.

    Raises:
        SchemaOutdated: it lacks some, or was never migrated.
        ConfigurationError: its sessions don't begin as "read committed".
        DatabaseUnavailable: PostgreSQL can't be reached.
    """
    async with _connection(dsn) as connection:
        isolation = await connection.fetchval(load(schema)["isolation"])
        applied = await _applied(connection, schema)
    if isolation != "read committed":
        # What waited for a lock would look at what was before: see "then looks again" in DESIGN.md.
        raise ConfigurationError(
            f'Transactions begin as "{isolation}" in this database or for this user, and Queued Tasks needs '
            '"read committed": add default_transaction_isolation=read%20committed to its URL, behind a ? or &, or '
            "alter role ... set default_transaction_isolation = 'read committed'."
        )
    if applied is None:
        raise SchemaOutdated(f'The database has no schema "{schema}" of Queued Tasks: run `queued-tasks migrate`.')
    needed = migrations(schema)
    if missing := [number for number in needed if number not in applied]:
        raise SchemaOutdated(
            f'The schema "{schema}" lacks migration {missing[0]} of {max(needed)}: run `queued-tasks migrate`.'
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


async def _apply(connection: asyncpg.Connection, schema: str) -> list[int]:
    statements = load(schema)
    async with connection.transaction():
        await connection.execute(statements["lock_migrations"])
        await connection.execute(statements["limit_lock_waits"])
        applied = await _applied(connection, schema)
        if applied is None:
            await connection.execute(statements["create_schema"])
        missing = [number for number in migrations(schema) if number not in (applied or ())]
        for number in missing:
            name, sql = migrations(schema)[number]
            await connection.execute(sql)
            await connection.execute(statements["record_migration"], number, name)
        return missing


async def _holder(connection: asyncpg.Connection, schema: str) -> str:
    holder = await connection.fetchrow(load(schema)["lock_holder"])
    if holder is None:
        return "somebody"
    seconds = "" if holder["seconds"] is None else f", for {holder['seconds']:.0f} s"
    application = f" of {holder['application']!r}" if holder["application"] else ""
    return f"the session {holder['pid']}{application} ({holder['state'] or 'of another user'}{seconds})"


async def _applied(connection: asyncpg.Connection, schema: str) -> set[int] | None:
    statements = load(schema)
    if not await connection.fetchval(statements["has_schema"]):
        return None
    return {row["version"] for row in await connection.fetch(statements["applied_migrations"])}


@asynccontextmanager
async def _connection(dsn: str) -> AsyncIterator[asyncpg.Connection]:
    connection: asyncpg.Connection | None = None
    try:
        # no cache: behind a pooler a prepared statement may be somebody else's
        connection = await asyncpg.connect(dsn, timeout=CONNECT_TIMEOUT, statement_cache_size=0)
        yield connection
        await connection.close(timeout=CONNECT_TIMEOUT)
    except Exception as error:
        meaning = translate(error, connection)
        if meaning is None:
            raise
        raise meaning from error
    finally:
        if connection is not None:
            connection.terminate()
