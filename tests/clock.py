"""A clock that tests put forward."""

from __future__ import annotations


class Clock:
    """Stands for the module `time` where only its monotonic clock is read."""

    def __init__(self) -> None:
        self.now = 1_000.0

    def monotonic(self) -> float:
        return self.now
