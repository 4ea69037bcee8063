"""How the whole is at one moment, in one round trip: for `status`, and for whoever asks whether all is well."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

from .link import Link

STUCK_AFTER = 60.0  # seconds that a due task may wait while there are free slots


@dataclass(frozen=True, slots=True)
class Overview:
    """`servers` are those that beat, `claiming` those of them that take tasks, `free` the slots of the latter.

    `oldest_waiting`: for how many seconds the oldest task that could run has been waiting, None when there is none.
    """

    version: str
    migration: int
    servers: int
    claiming: int
    free: int
    oldest_waiting: float | None

    @property
    def stuck(self) -> bool:
        """Whether a task waits although there is room for it: a backlog that keeps every slot busy is not stuck."""
        return self.free > 0 and (self.oldest_waiting or 0) > STUCK_AFTER


async def overview(link: Link, lease_ttl: timedelta) -> Overview:
    """Look at servers and lines. Raises what every call of a link raises."""
    row = await link.fetch_one("overview", lease_ttl.total_seconds())
    assert row is not None
    return Overview(**dict(row))
