"""How a server is doing: each actor writes its own part, the heartbeat and the health checks read them all."""

from __future__ import annotations

import time
from dataclasses import dataclass, field


@dataclass(slots=True)
class Vitals:
    """Times are readings of time.monotonic(), counts grow from the start of the incarnation."""

    state: str = "starting"  # written by the supervisor
    workers: int = 0
    error: str | None = None  # why the application can't be imported
    slots: int = 0  # written by the claimer
    busy: int = 0
    resting: bool = False  # takes no tasks because somebody wants it drained
    claimed: int = 0
    can_claim: bool = True  # PostgreSQL answered the last claim
    settled: int = 0  # written by the settler
    closed: int = 0  # of those claimed: recorded, given back, or lost
    lost: int = 0
    beat_at: float | None = None  # written by the keeper; None while PostgreSQL does not answer
    memory: dict[int, int] = field(default_factory=dict)  # bytes by worker, written by the workers

    @property
    def standing(self) -> str:
        """The state as others are to see it: a drained server may have any number of workers up, or none."""
        if self.resting and self.state != "draining":
            return "draining" if self.claimed > self.closed else "drained"
        return self.state

    def claiming(self, lease_ttl: float) -> bool:
        """Whether this server takes work: it has workers, a valid lease, and PostgreSQL answers."""
        now = time.monotonic()
        return (
            self.standing == "running"
            and self.beat_at is not None
            and now - self.beat_at < lease_ttl
            and self.can_claim
        )
