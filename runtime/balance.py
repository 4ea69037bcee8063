"""Who takes how much: what a worker may be given ahead, and which worker gets an attempt. Pure."""

from __future__ import annotations

import heapq
from collections.abc import Mapping
from dataclasses import dataclass

AHEAD_SECONDS = 0.02  # of work that a worker may hold beyond its slots: about two claims' round trips
AHEAD_MOST = 400  # attempts


@dataclass(slots=True)
class Room:
    """What one worker can hold: `slots` run at once, `held` is what it was given, `rate` what it ends per second."""

    slots: int
    held: int = 0
    rate: float = 0.0

    @property
    def ahead(self) -> int:
        """How many attempts it may be given beyond its slots, so that very short tasks don't wait for claims."""
        return min(int(self.rate * AHEAD_SECONDS), AHEAD_MOST)

    @property
    def free(self) -> int:
        return max(0, self.slots + self.ahead - self.held)


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
