"""PgBouncer in transaction mode, before the database of a test."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

from tests.waiting import wait_until

PROGRAM = shutil.which("pgbouncer", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
_CONFIGURATION = """
[databases]
* = host={target} port={port} user=postgres
[pgbouncer]
unix_socket_dir = {folder}
unix_socket_mode = 0777
listen_port = {port}
auth_type = any
pool_mode = transaction
default_pool_size = 8
max_client_conn = 200
"""


@asynccontextmanager
async def bouncer(dsn: str) -> AsyncIterator[str]:
    """The DSN that leads through it. It has fewer connections to PostgreSQL than others have to it."""
    query = parse_qs(urlsplit(dsn).query)
    target, port = query["host"][0], query.get("port", ["5432"])[0]
    owner = os.stat(target)  # noqa: PTH116  # the socket is for that account alone
    with tempfile.TemporaryDirectory(prefix="bouncer-") as folder:
        configuration = _configure(folder, target, port, owner)
        assert PROGRAM
        process = await asyncio.create_subprocess_exec(
            *(PROGRAM, "-q", configuration),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.DEVNULL,
            cwd="/",
            user=owner.st_uid,
            group=owner.st_gid,
            extra_groups=[],
        )
        try:
            await wait_until(Path(folder, f".s.PGSQL.{port}").exists)
            yield re.sub(r"host=[^&]*", f"host={folder}", dsn)
        finally:
            process.kill()
            await process.wait()


def _configure(folder: str, target: str, port: str, owner: os.stat_result) -> Path:
    configuration = Path(folder, "pgbouncer.ini")
    configuration.write_text(_CONFIGURATION.format(target=target, port=port, folder=folder))
    for path in (folder, configuration):
        os.chown(path, owner.st_uid, owner.st_gid)
    return configuration
