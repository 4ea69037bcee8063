"""How a server is doing: each actor writes its own part, the heartbeat and the health checks read them all."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass, field

from ..runtime import balance


@dataclass(frozen=True, slots=True)
class Capacity:
    """What the workers of one kind can run at once, and do run."""

    workers: int
    slots: int
    busy: int


@dataclass(slots=True)
class Vitals:
    """Times are readings of time.monotonic(), counts grow from the start of the incarnation."""

    state: str = "starting"  # written by the supervisor
    workers: int = 0
    error: str | None = None  # why workers can't start
    kinds: dict[bool, Capacity] = field(default_factory=dict)  # of async (False) and sync workers, by the claimer
    resting: bool = False  # takes no tasks because somebody wants it drained
    claimed: int = 0
    can_claim: bool = True  # PostgreSQL answered the last claim
    settled: int = 0  # written by the settler
    closed: int = 0  # of those claimed: recorded, given back, or lost
    lost: int = 0
    beat_at: float | None = None  # written by the keeper; None while PostgreSQL does not answer
    memory: dict[int, int] = field(default_factory=dict)  # bytes by worker, written by the workers
    blocked: dict[int, str] = field(default_factory=dict)  # workers that don't answer, and why; written by the workers

    @property
    def trouble(self) -> str | None:
        """What is wrong with the workers, for people."""
        said = [f"worker {number} does not answer: {why}" for number, why in sorted(self.blocked.items())]
        return "\n".join([*said, *([self.error] if self.error else [])]) or None

    @property
    def slots(self) -> int:
        """How many tasks can run at once."""
        return sum(kind.slots for kind in self.kinds.values())

    @property
    def busy(self) -> int:
        """How many do."""
        return sum(kind.busy for kind in self.kinds.values())

    @property
    def pace(self) -> float:
        """How fast tasks start here, 1 at best."""
        return balance.pace(os.getloadavg()[0], os.cpu_count() or 1)

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
