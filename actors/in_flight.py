"""The attempts that a worker process has: which of them run, which it has begun; also for after its death."""

from __future__ import annotations

from collections.abc import Iterable
from ctypes import c_uint64
from itertools import count, islice

from ..runtime.task import Claimed
from .held import Held


class InFlight(dict[int, Held]):
    """Attempts by number, in the order in which they were sent, which is the order in which the process begins them.

    It begins none before the end of one that made room for it is told, so the oldest `slots` are those that run. But a
    thread that runs one after another tells nobody until somebody else finds the time: it notes in `begun` what it has
    begun. What is older and still here has ended, too.
    """

    def __init__(self, slots: int, begun: c_uint64 | None) -> None:
        super().__init__()
        self._slots = slots
        self._begun = begun
        self._numbers = count(1)

    def send(self, attempts: Iterable[Claimed], now: float) -> list[tuple[int, Claimed]]:
        """Number attempts and take them in."""
        numbered = list(zip(self._numbers, attempts, strict=False))
        for no, claimed in numbered:
            self[no] = Held(claimed, now)
        return numbered

    def running(self) -> dict[int, Held]:
        """What runs, as far as can be seen: where nothing is begun although it could be, that is what should run."""
        if self._begun is not None and (held := self.get(self._begun.value)) is not None:
            return {self._begun.value: held}
        return dict(islice(self.items(), self._slots))

    def begun(self) -> dict[int, Held]:
        """What was begun, as far as is known."""
        if self._begun is None:
            return self.running()
        return {no: held for no, held in self.items() if no <= self._begun.value}
