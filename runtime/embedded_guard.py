"""The guard of an embedded server: starts PostgreSQL, sleeps until the last user is gone, stops it.

A program of its own: embedded.py runs it on the bare interpreter, so it imports next to nothing and stays small.
"""

from __future__ import annotations

import fcntl
import os
import sys

# The caller's PGPORT, PGOPTIONS or LD_LIBRARY_PATH must not reach this server.
ENVIRONMENT = {"LC_ALL": "C", "TZ": "UTC", "PATH": "/usr/local/bin:/usr/bin:/bin"}


def main(
    users: str, guards: str, gate: str, uid: str, gid: str, pg_ctl: str, cluster: str, sockets: str, start: str
) -> int:
    """Start the server if `start` is not empty, leave a sleeping guard behind, return pg_ctl's status.

    `users` and `guards` are lock files, `gate` is the inherited descriptor of the lock that admits one starter: it is
    kept until the server is up, so that the death of the starter can't let another one in halfway.
    """
    os.set_inheritable(int(gate), False)
    users_lock, guards_lock = (os.open(path, os.O_RDWR | os.O_NOFOLLOW) for path in (users, guards))
    fcntl.flock(guards_lock, fcntl.LOCK_SH)
    if os.geteuid() != int(uid):
        os.setgroups([])
        os.setgid(int(gid))
        os.setuid(int(uid))
    status = start_server(pg_ctl, cluster, sockets) if start else 0
    if os.fork():
        return status

    os.close(int(gate))
    fcntl.flock(users_lock, fcntl.LOCK_EX)
    # First this one: whoever then gets the users' lock must not take a guard that is leaving for one that watches.
    os.close(guards_lock)
    if os.path.exists(f"{cluster}/postmaster.pid"):  # noqa: PTH110  # pathlib takes 2 MB
        os.set_inheritable(users_lock, True)  # new users wait until the old server is down
        os.execve(pg_ctl, [pg_ctl, "stop", "-s", "-w", "-m", "fast", "-D", cluster], ENVIRONMENT)  # noqa: S606  # no shell
    return 0


def start_server(pg_ctl: str, cluster: str, sockets: str) -> int:
    """Start the server and wait until it takes connections; returns pg_ctl's status."""
    disown(f"{cluster}/postmaster.pid", cluster)
    disown(f"{sockets}/.s.PGSQL.5432.lock", cluster)
    options = f"-k {sockets} -p 5432 -c listen_addresses= -c unix_socket_permissions=0700"
    # The folder goes by the environment: pg_ctl would put an argument through a shell.
    pid = os.posix_spawn(pg_ctl, [pg_ctl, "start", "-s", "-w", "-o", options], {**ENVIRONMENT, "PGDATA": cluster})
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def disown(lock: str, cluster: str) -> None:
    """Let PostgreSQL take over a lock file that a killed server left behind.

    It refuses while a process with the pid in the file exists, be it a zombie or (after a restart of the container)
    another program, but it passes over the pid of pg_ctl's parent, which is ours. Deleting the file instead would
    also delete PostgreSQL's check that no backend of the killed server is still at work.
    """
    try:
        with open(lock) as file:  # noqa: PTH123  # pathlib takes 2 MB
            pid, rest = file.read().split("\n", 1)
    except FileNotFoundError:
        return
    if not serves(pid, cluster):
        with open(f"{lock}.new", "w") as file:  # noqa: PTH123  # pathlib takes 2 MB
            file.write(f"{os.getpid()}\n{rest}")
        os.replace(f"{lock}.new", lock)  # noqa: PTH105  # pathlib takes 2 MB


def serves(pid: str, cluster: str) -> bool:
    """Whether the process `pid` may be the server of `cluster`: a postmaster works in its cluster's folder."""
    try:
        return os.path.samefile(f"/proc/{pid}/cwd", cluster)  # noqa: PTH121  # pathlib takes 2 MB
    except FileNotFoundError:
        return not os.path.exists("/proc/self")  # noqa: PTH110  # pathlib takes 2 MB
    except OSError:
        return True


if __name__ == "__main__":
    os.umask(0o077)
    sys.exit(main(*sys.argv[1:]))
