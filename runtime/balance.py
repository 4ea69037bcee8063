"""Who takes how much: a server of new tasks, a worker ahead of its slots, which worker an attempt. Pure."""

from __future__ import annotations

import hashlib
import heapq
from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from typing import TypeVar

K = TypeVar("K", bound=Hashable)

AHEAD_SECONDS = 0.08  # of work that a worker may hold beyond its slots: a few claims' round trips
AHEAD_MOST = 3_000  # attempts


@dataclass(slots=True)
class Room:
    """What one worker can hold: `slots` run at once, `held` is what it was given, `rate` what it ends per second.

    One that is not `open` is given nothing.
    """

    slots: int
    held: int = 0
    rate: float = 0.0
    open: bool = True

    @property
    def ahead(self) -> int:
        """How many attempts it may be given beyond its slots, so that very short tasks don't wait for claims."""
        return min(int(self.rate * AHEAD_SECONDS), AHEAD_MOST) if self.open else 0

    @property
    def free(self) -> int:
        return max(0, self.slots + self.ahead - self.held) if self.open else 0


def wanted(rooms: Mapping[int, Room]) -> int:
    """How many attempts to claim now; 0 while the workers have enough ahead of them that a larger claim can wait."""
    free = sum(room.free for room in rooms.values())
    spare = sum(room.ahead for room in rooms.values())
    return free if free > spare // 2 else 0


def place(count: int, rooms: Mapping[int, Room]) -> list[int]:
    """The worker for each of `count` attempts, least busy first; fewer when the room is not enough."""
    heap = [
        ((room.held - room.slots) / room.slots, worker, room.free, room) for worker, room in rooms.items() if room.free
    ]
    heapq.heapify(heap)
    placed: list[int] = []
    while heap and len(placed) < count:
        load, worker, free, room = heap[0]
        placed.append(worker)
        if free == 1:
            heapq.heappop(heap)
        else:
            heapq.heapreplace(heap, (load + 1 / room.slots, worker, free - 1, room))
    return placed


def pace(load: float, cores: int) -> float:
    """How fast a host starts tasks, at most 1: less where more processes than `cores` want to run (load average)."""
    return min(1.0, cores / load) if load > 0 else 1.0


def shares(count: int, rooms: Mapping[K, float], turn: str, *, first: K | None = None) -> dict[K, int]:
    """How many of `count` new tasks each server is to take at first, in proportion to the room that each has.

    What can't be divided goes to the largest remainders (Hamilton's method); among equals to `first`, then in an order
    that `turn` decides, so that single tasks go round. With more tasks than room a share is more than fits.
    """
    total = sum(rooms.values())
    if not total:
        return dict.fromkeys(rooms, 0)
    exact = {server: count * room / total for server, room in rooms.items()}
    whole = {server: int(share) for server, share in exact.items()}

    def urgency(server: K) -> tuple[float, bool, bytes]:
        return whole[server] - exact[server], server != first, hashlib.blake2b(f"{turn} {server}".encode()).digest()

    for server in sorted(exact, key=urgency)[: count - sum(whole.values())]:
        whole[server] += 1
    return whole
