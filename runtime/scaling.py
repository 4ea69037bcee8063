"""How many workers of a kind a server should have, and when one of them has had its time. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

MIB = 1024**2
OVERGROWN = 2  # times its memory that a worker may hold while it finishes what runs
STRAIN = 0.85  # of a CPU, above which a worker has no use for more tasks although it has free slots


@dataclass(frozen=True, slots=True)
class Load:
    """A worker that takes tasks. `idle`: for how many seconds it has had none; `cpu`: how much of one it uses."""

    slots: int
    busy: int
    idle: float = 0.0
    cpu: float = 0.0
    blocked: bool = False

    @property
    def full(self) -> bool:
        return self.busy >= self.slots or self.strained

    @property
    def strained(self) -> bool:
        """Whether its free slots are worth nothing."""
        return self.blocked or (self.busy > 0 and self.cpu > STRAIN)


@dataclass(frozen=True, slots=True)
class Limits:
    """Between how many workers there may be, and after how many idle seconds one is too many.

    `floor`: somebody has asked for no more than so many while there is nothing to do; None: nobody has.
    """

    least: int
    most: int
    idle_timeout: float
    floor: int | None = None

    def scaled(self, workers: int) -> Limits:
        """For so many workers: who asks for them gets them, unless fewer are to be enough."""
        return replace(self, least=min(workers, self.floor or workers), most=workers)


def workers_wanted(loads: Sequence[Load], starting: int, limits: Limits, *, waiting: bool) -> int:
    """How many there should be, `starting` of which are on their way. `waiting`: there are tasks that nobody has taken.

    While none of them could make use of more tasks the number doubles, so that a burst is met within a few steps; each
    step waits for those on their way. It shrinks one by one, only by workers that had nothing to do for the whole
    timeout: whoever is wanted now and then stays.
    """
    now = len(loads) + starting
    if now < limits.least:
        return limits.least
    if now > limits.most or starting:
        return min(now, limits.most)
    if all(load.full for load in loads) and (waiting or any(load.strained for load in loads)):
        return min(max(2 * now, 1), limits.most)
    spare = any(load.idle > limits.idle_timeout for load in loads)
    return max(now - spare, limits.least)


@dataclass(frozen=True, slots=True)
class Wear:
    """After how many tasks, or with how many bytes of memory, a worker is replaced; None: never."""

    tasks: int | None = None
    memory: int | None = None

    def of(self, tasks: int, memory: int) -> str | None:
        """Why a worker that has run so many tasks, and holds so many bytes, is to be replaced."""
        if self.memory is not None and memory > self.memory:
            return f"it holds {memory // MIB} MiB, its limit is {self.memory // MIB} MiB"
        return f"it has run {tasks} tasks" if self.tasks is not None and tasks >= self.tasks else None

    def is_far_exceeded(self, memory: int) -> bool:
        """Whether a worker that holds so many bytes must not even finish what runs."""
        return self.memory is not None and memory > OVERGROWN * self.memory
