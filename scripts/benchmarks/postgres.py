"""A PostgreSQL for one run of the benchmark: durable, tuned little, removed afterwards."""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import psycopg
from psycopg import sql

from queued_tasks.runtime.embedded_guard import ENVIRONMENT
from queued_tasks.runtime.embedded_home import Account, account, binaries

SETTINGS = {
    "fsync": "on",
    "synchronous_commit": "on",
    "shared_buffers": "1GB",
    "max_wal_size": "4GB",
    "max_connections": "200",
}


class Postgres:
    """A running cluster on 127.0.0.1, since not every peer takes a socket's path."""

    def __init__(self, home: Path, owner: Account, port: int, changes: Mapping[str, str]) -> None:
        self._home, self._owner, self._port, self._changes = home, owner, port, changes
        self._programs = binaries().folder

    def dsn(self, database: str = "postgres") -> str:
        """The DSN of the superuser."""
        return f"postgresql://postgres@127.0.0.1:{self._port}/{database}"

    def connect(self, database: str = "postgres") -> psycopg.Connection[tuple[Any, ...]]:
        """A connection of one's own, in autocommit."""
        return psycopg.connect(self.dsn(database), autocommit=True)

    def ask(self, statement: str, database: str = "postgres") -> Any:
        """The first value that a statement gives."""
        with self.connect(database) as connection:
            row = connection.execute(statement.encode()).fetchone()
        return row[0] if row else None

    def execute(self, statement: str, database: str = "postgres") -> None:
        """Run a statement that gives nothing."""
        with self.connect(database) as connection:
            connection.execute(statement.encode())

    def create(self, name: str, template: str = "template1") -> None:
        """Make a database anew, a copy of `template`; by files, which costs no WAL."""
        self.drop(name)
        with self.connect() as connection:
            made = sql.SQL("create database {} template {} strategy file_copy")
            connection.execute(made.format(sql.Identifier(name), sql.Identifier(template)))

    def drop(self, name: str) -> None:
        """Remove a database, whoever is connected to it."""
        with self.connect() as connection:
            connection.execute(sql.SQL("drop database if exists {} with (force)").format(sql.Identifier(name)))

    def wal(self) -> int:
        """Bytes of WAL so far."""
        return int(self.ask("select pg_wal_lsn_diff(pg_current_wal_insert_lsn(), '0/0')::bigint"))

    def cpu(self) -> float:
        """Seconds of CPU that the server and all its processes, past ones too, have used."""
        postmaster = psutil.Process(int((self._home / "cluster" / "postmaster.pid").read_text().split()[0]))
        own = postmaster.cpu_times()
        return sum(own[:4]) + sum(cpu_of(child) for child in postmaster.children())

    def tool(self, name: str, *arguments: str) -> str:
        """What a program of PostgreSQL prints, run as the server's account."""
        command = [str(self._programs / name), *arguments]
        done: subprocess.CompletedProcess[str] = subprocess.run(
            command, capture_output=True, text=True, check=False, **self._as_owner()
        )
        if done.returncode:
            raise RuntimeError(f"{name} failed: {done.stderr[-800:]}")
        return done.stdout

    def commits(self, script: str, database: str, *, clients: int, seconds: int) -> float:
        """Transactions per second of a pgbench script."""
        path = self._home / "script.sql"
        path.write_text(script)
        path.chmod(0o644)
        address = ("-h", "127.0.0.1", "-p", str(self._port), "-U", "postgres")
        load = ("-n", "-M", "prepared", "-c", str(clients), "-T", str(seconds), "-f", str(path))
        said = self.tool("pgbench", *address, *load, database)
        found = re.search(r"tps = ([\d.]+) \(without", said)
        assert found, said
        return float(found[1])

    def sync_microseconds(self) -> float:
        """How long an fdatasync of 8 KiB takes on the disk of the cluster."""
        said = self.tool("pg_test_fsync", "-s", "1", "-f", str(self._home / "cluster" / "fsync-test"))
        found = re.search(r"fdatasync\s+[\d.]+ ops/sec\s+([\d.]+) usecs/op", said)
        assert found, said
        return float(found[1])

    def start(self) -> None:
        """Make the cluster and start it."""
        cluster = self._home / "cluster"
        cluster.mkdir(0o700)
        os.chown(cluster, *self._owner)
        self.tool(
            "initdb", "-D", str(cluster), "-U", "postgres", "-A", "trust", "-E", "UTF8", "--locale=C", "--no-sync"
        )
        address = {"listen_addresses": "'127.0.0.1'", "port": self._port, "unix_socket_directories": "''"}
        settings = {**SETTINGS, **self._changes, **address}
        with (cluster / "postgresql.conf").open("a") as file:
            file.writelines(f"{name} = {value}\n" for name, value in settings.items())
        self._control("start", "-l", str(cluster / "server.log"))

    def stop(self) -> None:
        """Stop it and remove the cluster."""
        self._control("stop", "-m", "immediate")
        shutil.rmtree(self._home, ignore_errors=True)

    def _control(self, *arguments: str) -> None:
        command = [str(self._programs / "pg_ctl"), "-D", str(self._home / "cluster"), "-w", "-s", *arguments]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, **self._as_owner())

    def _as_owner(self) -> dict[str, Any]:
        who = {} if os.geteuid() else {"user": self._owner.uid, "group": self._owner.gid, "extra_groups": []}
        return {"cwd": "/", "env": ENVIRONMENT, "stdin": subprocess.DEVNULL, **who}


def cpu_of(process: psutil.Process) -> float:
    """Seconds of CPU that a process has used; none when it has gone."""
    try:
        times = process.cpu_times()
    except psutil.NoSuchProcess:
        return 0.0
    return times.user + times.system


@contextmanager
def running_postgres(**changes: str) -> Iterator[Postgres]:
    """A server for the length of a `with` block, ended by SIGTERM and Ctrl-C, too. TMPDIR says on which disk.

    `changes`: settings that are not to be as in SETTINGS.
    """
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell lets what it starts in the background ignore it
    home = Path(tempfile.mkdtemp(prefix="queued-tasks-bench-"))
    postgres = Postgres(home, account(home), _free_port(), changes)
    try:
        postgres.start()
        yield postgres
    finally:
        postgres.stop()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
