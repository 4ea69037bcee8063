"""How soon to try again when workers can't start, or don't stay."""

from __future__ import annotations

import time
from collections import deque

FIRST_PAUSE = 0.5  # seconds, doubling
LONGEST_PAUSE = 30.0
WINDOW = 30.0  # seconds


class Setbacks:
    """Counts them. Deaths are to be expected; only too many within the window are a setback."""

    def __init__(self) -> None:
        self._pause = FIRST_PAUSE
        self._try_at = 0.0
        self._deaths: deque[float] = deque()

    @property
    def may_try(self) -> bool:
        """Whether workers may be started again."""
        return time.monotonic() >= self._try_at

    def failed(self) -> None:
        """The next try waits, each time longer."""
        self._try_at = time.monotonic() + self._pause
        self._pause = min(self._pause * 2, LONGEST_PAUSE)

    def died(self) -> None:
        """A worker died that had come up."""
        self._deaths.append(time.monotonic())

    def too_many_deaths(self, workers: int) -> bool:
        """Whether more died than all of so many at once, and those under a task on its three lives."""
        while self._deaths and self._deaths[0] < time.monotonic() - WINDOW:
            self._deaths.popleft()
        return len(self._deaths) > 2 * workers + 3

    def over(self) -> None:
        """Workers come up."""
        self._pause = FIRST_PAUSE
