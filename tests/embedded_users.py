"""Processes that use embedded servers, for tests that start, kill and question them."""

from __future__ import annotations

import asyncio
import os
import select
import subprocess
import sys
from pathlib import Path

import asyncpg

REPOSITORY = Path(__file__).parents[1]

USE = """
import os, signal, subprocess, sys
from pathlib import Path
from queued_tasks.runtime.embedded import start

home = Path(sys.argv[1]) if sys.argv[1] else None
print(start(home), flush=True)
"""
STAY = "sys.stdin.read()\n"


class Users:
    """Processes that use embedded servers. Remembers those servers, to wait for their end."""

    def __init__(self) -> None:
        self._launched: list[subprocess.Popen[str]] = []
        self._servers: dict[int, int] = {}

    def launch(
        self,
        home: Path | None,
        then: str = STAY,
        *,
        command: tuple[str, ...] = (sys.executable,),
        uid: int | None = None,
        **env: str,
    ) -> subprocess.Popen[str]:
        user = subprocess.Popen(
            [*command, "-c", USE + then, str(home or "")],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
            cwd="/",
            env={**os.environ, "PYTHONPATH": f"{REPOSITORY}:{os.environ.get('PYTHONPATH', '')}", **env},
            user=uid,
            group=uid,
            extra_groups=None if uid is None else [],
        )
        self._launched.append(user)
        return user

    def join(self, home: Path | None, then: str = STAY) -> tuple[subprocess.Popen[str], str]:
        user = self.launch(home, then)
        return user, self.dsn(user)

    def dsn(self, user: subprocess.Popen[str]) -> str:
        """Return the next DSN that `user` prints; its server is remembered."""
        dsn = said(user)
        assert dsn, failure(user)
        self.server(dsn)
        return dsn

    def server(self, dsn: str) -> int:
        """Return the pid of the server at `dsn`."""
        pid = int((sockets(dsn) / ".s.PGSQL.5432.lock").read_text().split()[0])
        if pid not in self._servers:
            self._servers[pid] = os.pidfd_open(pid)
        return pid

    def kill(self, *users: subprocess.Popen[str]) -> None:
        for user in users or self._launched:
            user.kill()
            user.wait()

    def has_ended(self, server: int) -> bool:
        """Wait until `server` is gone; False if it stays."""
        return bool(select.select([self._servers[server]], [], [], 30)[0])

    def close(self) -> None:
        self.kill()
        for user in self._launched:
            for pipe in (user.stdin, user.stdout, user.stderr):
                assert pipe
                pipe.close()
        assert all(map(self.has_ended, self._servers))
        for watch in self._servers.values():
            os.close(watch)
        self._launched.clear()
        self._servers.clear()


def said(user: subprocess.Popen[str]) -> str:
    """The next line that `user` prints."""
    assert user.stdout
    return user.stdout.readline().strip()


def failure(user: subprocess.Popen[str]) -> str:
    """The last line on stderr of a user that could not start."""
    assert user.wait()
    assert user.stderr
    return user.stderr.read().strip().splitlines()[-1]


def sockets(dsn: str) -> Path:
    return Path(dsn.partition("host=")[2].partition("&")[0])


def guards(home: Path) -> list[int]:
    lines = {file.parent.name: file.read_bytes() for file in Path("/proc").glob("[0-9]*/cmdline")}
    return [int(pid) for pid, line in lines.items() if os.fsencode(home / "guards.lock") in line]


def ask(dsn: str, query: str) -> object:
    async def fetch() -> object:
        connection = await asyncpg.connect(dsn)
        try:
            return await connection.fetchval(query)
        finally:
            await connection.close()

    return asyncio.run(fetch())
