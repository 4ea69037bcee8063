"""PostgreSQL for tests: one server per run, one migrated template on it, a fresh copy of that for each test."""

from __future__ import annotations

import hashlib
import os
import re
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from importlib.resources import files
from pathlib import Path
from uuid import uuid4

import asyncpg

from queued_tasks.runtime.store.migrate import migrate

_HOLDER = """
import sys
from pathlib import Path
from queued_tasks.runtime.embedded import start

print(start(Path(sys.argv[1])), flush=True)
sys.stdin.read()
"""
_TEMPLATE_LOCK = 7_205_759_403


@contextmanager
def running_server(home: Path) -> Iterator[str]:
    """The superuser DSN of `QUEUE_TEST_DATABASE_URL`, else of the embedded server in `home`, started or joined.

    A process of its own holds the embedded server, so that it is let go here and not only when the tests' process ends.
    """
    if given := os.environ.get("QUEUE_TEST_DATABASE_URL"):
        yield given
        return
    command = [sys.executable, "-c", _HOLDER, str(home)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdin
        assert holder.stdout
        dsn = holder.stdout.readline().strip()
        assert dsn, "the embedded PostgreSQL did not start; its process wrote the reason to stderr"
        yield dsn
        holder.stdin.close()


def with_database(dsn: str, name: str) -> str:
    """The same DSN for another database of that server."""
    return re.sub(r"^(\w+://[^/?#]*)(/[^?#]*)?", rf"\1/{name}", dsn, count=1)


@asynccontextmanager
async def fresh_database(server: str, *, template: str = "template1") -> AsyncIterator[str]:
    """The DSN of a new copy of `template`, dropped afterwards even while somebody is connected to it."""
    name = f"test_{uuid4().hex}"
    async with connected(server) as connection:
        await connection.execute(f"create database {name} template {template}")
    try:
        yield with_database(server, name)
    finally:
        async with connected(server) as connection:
            await connection.execute(f"drop database {name} with (force)")


def template_name() -> str:
    """The name of the template for the migrations as they are now."""
    digest = hashlib.sha256()
    for migration in sorted((files("queued_tasks.runtime.store") / "migrations").iterdir(), key=lambda it: it.name):
        if migration.name.endswith(".sql"):
            digest.update(migration.read_bytes())
    return f"template_{digest.hexdigest()[:16]}"


async def ensure_template(server: str, name: str) -> None:
    """Make a database `name` that holds the schema, unless it is there; only one caller at a time does.

    It gets its name once it is complete, so that one left half done by a killed run is never taken for it.
    """
    async with connected(server) as connection:
        await connection.execute("select pg_advisory_lock($1)", _TEMPLATE_LOCK)
        if await connection.fetchval("select exists (select from pg_database where datname = $1)", name):
            return
        await connection.execute("drop database if exists template_draft with (force)")
        await connection.execute("create database template_draft")
        await migrate(with_database(server, "template_draft"))
        await connection.execute("alter database template_draft with allow_connections false")
        await connection.execute(f"alter database template_draft rename to {name}")


@asynccontextmanager
async def connected(dsn: str) -> AsyncIterator[asyncpg.Connection]:
    """A connection for the length of a `with` block."""
    connection = await asyncpg.connect(dsn)
    try:
        yield connection
    finally:
        await connection.close()
