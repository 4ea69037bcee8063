"""The key that the embedded database has of its own, so that its tasks are signed without anything to configure."""

from __future__ import annotations

import os
import secrets
import stat
import tempfile
from pathlib import Path

from .errors import ConfigurationError

_NAME = "secret.key"


def own_key(home: Path) -> str:
    """The key in the folder `home`, which is ours alone; made when there is none, readable for nobody else.

    Raises:
        ConfigurationError: others can read it, or it can't be read.
    """
    path = home / _NAME
    try:
        if not os.path.lexists(path):
            _make(path)
        file = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        with os.fdopen(file) as opened:
            if os.fstat(file).st_mode & (stat.S_IRWXG | stat.S_IRWXO):
                raise ConfigurationError(f"Other users may read the key in {path}: remove it, and a new one is made.")
            key = opened.read().strip()
    except OSError as error:
        raise ConfigurationError(
            f"The key in {path} can't be read ({error}): remove it, or set QUEUE_SECRET_KEY."
        ) from error
    if not key:
        raise ConfigurationError(f"The key in {path} is empty: remove it, and a new one is made.")
    return key


def _make(path: Path) -> None:
    """It appears complete, and of two processes that make it at once the second takes that of the first."""
    file, fresh = tempfile.mkstemp(prefix=f"{path.name}-", dir=path.parent)  # mode 0600
    try:
        with os.fdopen(file, "w") as opened:
            opened.write(secrets.token_urlsafe(32))
            opened.flush()
            os.fsync(file)
        try:
            os.link(fresh, path)
        except FileExistsError:
            return
    finally:
        Path(fresh).unlink()
