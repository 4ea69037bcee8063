"""What the claimer knows about the workers of one kind: their room, and whether there is something for them."""

from __future__ import annotations

import time

from ..runtime.balance import Room
from ..runtime.lines import LookBack
from .vitals import Capacity

RATE_MEMORY = 0.3  # seconds over which a worker's rate is averaged


class Kind:
    """The async workers, or the sync ones. Times are readings of time.monotonic()."""

    def __init__(self, full_pass_interval: float) -> None:
        self.look_back = LookBack(full_pass_interval)
        self.outlook = LookBack(full_pass_interval)  # of looks while it is full: what these see, no claim has
        self.rooms: dict[int, Room] = {}
        self.empty = False  # the last claim found nothing, and nobody said since that there is something
        self.short = True  # the last claim got less than it asked for
        self.waits = False  # more than there is room for
        self.got_at = 0.0  # something, by a claim
        self.look_at = 0.0  # for something while it is empty
        self.look_again_at = 0.0  # for what waits while it is full
        self._pause = 0.0
        self._freed_at: dict[int, float] = {}
        self._busy_since: dict[int, float] = {}

    @property
    def full(self) -> bool:
        """Whether no worker has room, or there is none."""
        return not any(room.free for room in self.rooms.values())

    @property
    def capacity(self) -> Capacity:
        rooms = self.rooms.values()
        busy = sum(min(room.held, room.slots) if room.open else room.slots for room in rooms)
        return Capacity(len(rooms), sum(room.slots for room in rooms), busy, self.waits)

    def joined(self, worker: int, slots: int) -> None:
        """What has been waiting may be just what this worker takes."""
        self.rooms[worker] = Room(slots)
        self._freed_at[worker] = self._busy_since[worker] = time.monotonic()
        self.empty = False
        self.waits = False
        self.look_again_at = 0.0

    def left(self, worker: int) -> None:
        self.rooms.pop(worker, None)
        self._freed_at.pop(worker, None)
        self._busy_since.pop(worker, None)

    def given(self, worker: int, count: int) -> None:
        """So many attempts were placed with this worker."""
        room = self.rooms[worker]
        if room.held <= 0:
            self._freed_at[worker] = self._busy_since[worker] = time.monotonic()
        room.held += count

    def freed(self, worker: int, count: int, run: bool) -> None:
        """So many attempts of this worker, if it is one of them, have ended, or were given back."""
        if room := self.rooms.get(worker):
            now = time.monotonic()
            room.held -= count
            if not run:
                room.rate = 0.0  # whatever it was: it is learnt anew
                return
            passed = max(now - self._freed_at[worker], 1e-6)
            # Of one that has just begun all that is known counts: it must not run dry while its rate is learnt.
            weight = passed / max(min(RATE_MEMORY, now - self._busy_since[worker]), passed)
            room.rate += (count / passed - room.rate) * weight
            self._freed_at[worker] = now

    def found(self, count: int, now: float, first_pause: float, longest_pause: float) -> None:
        """A claim returned so many; after nothing the next look waits, each time longer."""
        self._pause = 0.0 if count else min(max(self._pause * 2, first_pause), longest_pause)
        self.look_at = now + self._pause
