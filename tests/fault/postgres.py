"""A PostgreSQL of one's own, to be restarted, frozen and filled up."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import psutil

from queued_tasks.runtime.embedded_guard import ENVIRONMENT
from queued_tasks.runtime.embedded_home import binaries
from tests.databases import connected, ensure_template, fresh_database, running_server, template_name


class Postgres:
    """An embedded server and a migrated database on it. `dsn` is that of a superuser."""

    def __init__(self, cluster: Path, dsn: str) -> None:
        self._cluster = cluster
        self.dsn = dsn

    async def restart(self, mode: str) -> None:
        """`fast` ends all sessions, `immediate` is a crash. Returns when connections are taken again."""
        owner = self._cluster.stat()
        running = await asyncio.create_subprocess_exec(
            *(binaries().folder / "pg_ctl", "restart", "-s", "-w", "-m", mode, "-D", self._cluster),
            cwd="/",
            env=ENVIRONMENT,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.DEVNULL,
            user=owner.st_uid,
            group=owner.st_gid,
            extra_groups=[],
        )
        assert await running.wait() == 0

    async def set(self, name: str, value: object) -> None:
        """Change what takes a restart."""
        async with connected(self.dsn) as connection:
            await connection.execute(f"alter system set {name} = {value}")
        await self.restart("fast")

    @contextmanager
    def frozen(self) -> Iterator[None]:
        """Let every process of it stand still but the one that takes connections, which then get no answer."""
        postmaster = psutil.Process(int((self._cluster / "postmaster.pid").read_text().split()[0]))
        children = postmaster.children()
        for child in children:
            child.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            for child in children:
                child.send_signal(signal.SIGCONT)


@asynccontextmanager
async def own_postgres(folder: Path) -> AsyncIterator[Postgres]:
    """A server that nobody else uses."""
    with running_server(folder / "postgres") as superuser:
        name = template_name()
        await ensure_template(superuser, name)
        async with connected(superuser) as connection:
            cluster = Path(await connection.fetchval("show data_directory"))
        async with fresh_database(superuser, template=name) as dsn:
            yield Postgres(cluster, dsn)
