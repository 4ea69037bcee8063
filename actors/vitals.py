"""How a server is doing: each actor writes its own part, the heartbeat and the health checks read them all."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass, field
from uuid import UUID

from ..runtime import balance


@dataclass(frozen=True, slots=True)
class Capacity:
    """What the workers of one kind can run at once, and do run. `waiting`: there is more than they have room for."""

    workers: int
    slots: int
    busy: int
    waiting: bool = False


@dataclass(slots=True)
class WorkerVitals:
    """How one worker is doing. `busy`: the attempts that it has, also those ahead of its slots."""

    slots: int
    busy: int = 0
    ended: int = 0  # attempts since it started
    idle_since: float = field(default_factory=time.monotonic)
    memory: int = 0  # bytes
    first_memory: int = 0  # when it became active
    cpu: float = 0.0  # how much of one it uses
    answers: bool = True
    blocked: str | None = None  # why it has not answered for a while


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
    unrecorded: int = 0  # characters of what ended attempts leave: added by the workers, taken off by the settler
    gone: set[UUID] = field(default_factory=set)  # leases that PostgreSQL has lost
    beat_at: float | None = None  # written by the keeper; None while PostgreSQL does not answer
    posts: dict[int, WorkerVitals] = field(default_factory=dict)  # by worker, written by the workers

    def post(self, number: int) -> WorkerVitals:
        """A worker, also before it has said anything and after it is gone."""
        return self.posts.get(number) or WorkerVitals(1)

    @property
    def trouble(self) -> str | None:
        """What is wrong with the workers, for people."""
        posts = sorted(self.posts.items())
        said = [f"worker {number} does not answer: {post.blocked}" for number, post in posts if post.blocked]
        return "\n".join([*said, *([self.error] if self.error else [])]) or None

    @property
    def memory(self) -> int:
        """The bytes that the workers hold."""
        return sum(post.memory for post in self.posts.values())

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
