"""Who this server is: one incarnation, from its start to its end."""

from __future__ import annotations

import os
import secrets
import socket
from dataclasses import dataclass, field
from importlib.metadata import version

from ..runtime.ids import new_id
from ..runtime.task import ServerId


def version_of(app_version: str | None) -> str:
    """What a server says of its version: that of this package, behind the application's when one is given."""
    package = version("queued-tasks")
    return package if app_version is None else f"{app_version} (queued-tasks {package})"


@dataclass(slots=True)
class Identity:
    """The id is fresh at every start: two servers of one name, or on one host, never take each other for themselves.

    `lock_key` names the session lock that peers look at; None while it isn't held.
    """

    name: str
    host: str = field(default_factory=socket.gethostname)
    pid: int = field(default_factory=os.getpid)
    version: str = field(default_factory=lambda: version_of(None))
    id: ServerId = field(default_factory=lambda: ServerId(new_id()))
    lock_key: int | None = None
    joined: bool = False  # its row was written

    def renew_lock_key(self) -> int:
        """A key that nobody holds yet."""
        self.lock_key = secrets.randbits(62)
        return self.lock_key

    @property
    def topic(self) -> str:
        """The topic on which others tell this server that it is wanted."""
        return f"queued_tasks_{self.id.hex}"
