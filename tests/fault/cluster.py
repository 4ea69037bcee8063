"""PostgreSQL servers run by hand: reached over TCP, with a standby, in a network of their own, on a small disk."""

from __future__ import annotations

import asyncio
import os
import shutil
import socket
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil

from queued_tasks.runtime.embedded_guard import ENVIRONMENT
from queued_tasks.runtime.embedded_home import account, binaries
from queued_tasks.runtime.store.migrate import migrate
from tests.databases import connected, with_database

_CONFIGURATION = """
shared_buffers = 16MB
max_connections = 60
"""
_ACCESS = "host all all samenet trust\nhost replication all samenet trust\n"


class Cluster:
    """A server whose data lie in `folder`, which takes connections at `address`. `within`: the network it is in."""

    def __init__(self, folder: Path, *, address: str = "127.0.0.1", within: str | None = None) -> None:
        self.data = folder / "data"
        self.host = f"{address}:{_free_port() if within is None else 5432}"
        self.folder = folder
        self.owner = account(folder)
        if not os.geteuid():
            os.chown(folder, *self.owner)
        self._prefix: tuple[str, ...] = () if within is None else ("nsenter", f"--net=/run/netns/{within}")
        if not os.geteuid():
            uid, gid = self.owner
            self._prefix += ("setpriv", f"--reuid={uid}", f"--regid={gid}", "--clear-groups")

    @property
    def dsn(self) -> str:
        """The DSN of the trial's database, for a superuser."""
        return f"postgresql://postgres@{self.host}/trial"

    @property
    def local(self) -> str:
        """The same by a socket, which no network is in the way of."""
        return f"postgresql://postgres@/trial?host={self.folder}&port={self.host.split(':')[1]}"

    async def make(self, *options: str, **settings: object) -> None:
        """Make its data (`options` are those of initdb) and start it."""
        await self._run("initdb", "-U", "postgres", "-A", "trust", "-E", "UTF8", "--locale=C", "-N", *options)
        with (self.data / "pg_hba.conf").open("a") as access:
            access.write(_ACCESS)
        with (self.data / "postgresql.conf").open("a") as configuration:
            configuration.write(_CONFIGURATION)
        self._configure(settings)
        await self.start()

    async def follow(self, primary: Cluster, **settings: object) -> None:
        """Become a standby of `primary` and start."""
        await self._run("pg_basebackup", "-d", f"postgresql://postgres@{primary.host}", "-R", "-c", "fast", "-N")
        self._configure(settings)
        await self.start()

    async def start(self) -> None:
        """Returns when it takes connections."""
        await self._run("pg_ctl", "start", "-s", "-w", "-l", str(self.folder / "log"))

    async def promote(self) -> None:
        """Returns when a standby takes writes."""
        await self._run("pg_ctl", "promote", "-s", "-w")

    def kill(self) -> None:
        """SIGKILL for all of its processes at once."""
        with suppress(FileNotFoundError, psutil.NoSuchProcess):
            processes = self._processes()
            for process in processes:
                with suppress(psutil.NoSuchProcess):
                    process.kill()
            psutil.wait_procs(processes)

    @contextmanager
    def without(self, duty: str) -> Iterator[None]:
        """Let the process of this duty stand still, and go on after the block."""
        (process,) = (each for each in self._processes() if duty in " ".join(each.cmdline()))
        process.suspend()
        try:
            yield
        finally:
            with suppress(psutil.NoSuchProcess):
                process.resume()

    async def make_database(self) -> None:
        """Make the trial's database, with the schema."""
        async with connected(with_database(self.local, "postgres")) as connection:
            await connection.execute("create database trial")
        await migrate(self.local)

    def _processes(self) -> list[psutil.Process]:
        postmaster = psutil.Process(int((self.data / "postmaster.pid").read_text().split()[0]))
        return [postmaster, *postmaster.children(recursive=True)]

    def _configure(self, settings: dict[str, object]) -> None:
        address, port = self.host.split(":")
        with (self.data / "postgresql.conf").open("a") as configuration:
            for name, value in {
                "listen_addresses": address,
                "port": port,
                "unix_socket_directories": self.folder,
                **settings,
            }.items():
                configuration.write(f"{name} = '{value}'\n")

    async def _run(self, program: str, *arguments: str) -> None:
        with (self.folder / "commands").open("ab") as said:
            running = await asyncio.create_subprocess_exec(
                *(*self._prefix, str(binaries().folder / program), "-D", str(self.data), *arguments),
                cwd="/",
                env=ENVIRONMENT,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=said,
                stderr=said,
            )
            assert await running.wait() == 0, f"{program}: {(self.folder / 'commands').read_text()}"


@contextmanager
def cluster(*, address: str = "127.0.0.1", within: str | None = None) -> Iterator[Cluster]:
    """A server that is still to be made; in the end it is killed and removed."""
    folder = Path(tempfile.mkdtemp(prefix="cluster-"))
    try:
        made = Cluster(folder, address=address, within=within)
        try:
            yield made
        finally:
            made.kill()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
