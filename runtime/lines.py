"""Where to start reading a line of waiting tasks: the low-water of each lane, and how far to look back. Pure.

A line is read from above its low-water, because an index scan from its start walks over every row that was ever
claimed while vacuum is held back. A sequence number is taken before its row is committed, so a low-water can pass a
row that becomes visible a little later: reading again from where the low-water stood a while ago is not a safety net
but part of what makes claims complete.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

LATE = 1.0  # seconds by which an enqueuing statement may normally overtake another
VERY_LATE = 60.0  # seconds after which none can be under way: statements are given up long before
_KEPT = 3 * VERY_LATE  # seconds; a long look reaches back from the one before. What is forgotten is read from the start
_MARK_EVERY = 0.1  # seconds
_REST = 1.0  # seconds between two long looks back where nearly nothing is left
_SHARE = 20  # a look back may cost a twentieth of the time, unless that keeps it from coming at all


@dataclass(slots=True)
class Line:
    """One lane's low-water; times are readings of a monotonic clock, in seconds."""

    low: int = 0
    _marks: deque[tuple[float, int]] = field(default_factory=deque)

    def mark(self, now: float) -> None:
        """Remember where the low-water stands."""
        if self._marks:
            when, low = self._marks[-1]
            if low == self.low or now - when < _MARK_EVERY:
                return
        self._marks.append((now, self.low))
        while len(self._marks) > 1 and self._marks[1][0] <= now - _KEPT:
            self._marks.popleft()

    def taken(self, seq: int) -> None:
        """A task at `seq` was claimed."""
        self.low = max(self.low, seq)

    def left(self, seq: int) -> None:
        """More may stand above `seq`, though the low-water was higher: go on from there."""
        self.low = min(self.low, seq)

    def before(self, then: float) -> int:
        """Where the low-water stood at `then`, or a little earlier; 0 when nothing is known of that time."""
        return next((low for when, low in reversed(self._marks) if when <= then), 0)


@dataclass(slots=True)
class LookBack:
    """How far the next claim looks back.

    A claim that the one before left nearly nothing always does: it costs nothing there. Under a backlog one claim in a
    while does, at most a twentieth of the time; it sees what was late since the last one did. And once per
    `full_interval`, or second where nearly nothing is left, one looks back past anything that can be under way: what
    somebody else was taking apart may have come to lie behind, and he may be gone. No costly one, which may only have
    waited for PostgreSQL, puts the next one off by more than `full_interval`.
    """

    full_interval: float
    _looked_at: float = 0.0
    _long_at: float = 0.0  # the last long one
    _rest_at: float = 0.0
    _late_at: float = 0.0
    _full_at: float = 0.0

    def reach(self, now: float, *, nearly_empty: bool) -> float:
        """Seconds to look back; 0 to go on from the low-water."""
        if now >= self._full_at or (nearly_empty and now >= self._rest_at):
            return VERY_LATE + now - self._long_at
        due = nearly_empty or now >= self._late_at
        return LATE + now - self._looked_at if due else 0.0

    def done(self, reach: float, now: float, cost: float) -> None:
        """A claim that looked back that far took `cost` seconds."""
        if reach:
            self._looked_at = now - cost
            self._late_at = now + self._after(_MARK_EVERY, cost)
        if reach >= VERY_LATE:
            self._long_at = now - cost
            self._full_at = now + self.full_interval
            self._rest_at = now + self._after(_REST, cost)

    def _after(self, shortest: float, cost: float) -> float:
        return min(max(shortest, _SHARE * cost), self.full_interval)
