"""Where to start reading a line of waiting tasks: the low-water of each lane, and how far to look back. Pure.

A line is read from above its low-water, because an index scan from its start walks over every row that was ever
claimed while vacuum is held back. A sequence number is taken before its row is committed, so a low-water can pass a
row that becomes visible a little later: reading again from where the low-water stood a while ago is not a safety net
but part of what makes claims complete.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass, field

LATE = 1.0  # seconds by which an enqueuing statement may normally overtake another
VERY_LATE = 60.0  # seconds after which hardly one can be under way: statements are given up long before
_MARK_EVERY = 0.1  # seconds
_MOST_MARKS = 2_000  # what is forgotten is read from the start
_REST = 1.0  # seconds between two long looks back where nearly nothing is left
_SHARE = 20  # a look back may cost a twentieth of the time
_SELDOM = 10  # intervals by which a costly full pass may put the next one off


@dataclass(slots=True)
class Line:
    """One lane's low-water; times are readings of a monotonic clock, in seconds.

    A look back reaches from the last one that took something here: any other may have come to a lane that its channel
    had closed, or that more urgent ones had no room for.

    Where keys take turns it is that of their newcomers instead, and shown below zero: neither is of use for the other,
    so all is forgotten when the channel gets a limit per key, or loses it. Zero has a claim look for keys in the line,
    too: only a full pass shows that, and claims go on to until one has come through, for nothing else would find them.
    """

    low: int = 0
    _keyed: bool = False
    _owed: bool = False  # a full pass
    _looked_at: float = 0.0
    _long_at: float = 0.0  # when a look reached VERY_LATE
    _marks: deque[tuple[float, int]] = field(default_factory=lambda: deque(maxlen=_MOST_MARKS))

    def start(self, reach: float, now: float, *, claims: bool = True) -> int:
        """Above which number to read now; `reach` as a `LookBack` says. `claims`: `taken` is told what comes of it."""
        self._mark(now)
        low = self.low
        if reach:
            low = min(low, self._before((self._looked_at if reach < VERY_LATE else self._long_at) - reach))
        if not self._keyed:
            return low
        full = reach == math.inf
        self._owed |= full and claims
        return 0 if full or (self._owed and claims) else -max(low, 1)

    def taken(self, seq: int, reach: float, began: float) -> None:
        """A claim that read from `start` took what it found up to `seq`, 0 where that was in the turn of its key."""
        if not seq:
            return
        if (seq < 0) != self._keyed:
            self._keyed = seq < 0
            self.low = 0
            self._marks.clear()
        self._owed = False
        seq = abs(seq)
        if reach:
            self._looked_at = began
            if reach >= VERY_LATE:
                self._long_at = began
            if seq < self.low:  # it may not have come to the end of what it found behind: go on from there
                self.low = seq
                self._marks = deque(((when, min(low, seq)) for when, low in self._marks), _MOST_MARKS)
        self.low = max(self.low, seq)

    def _mark(self, now: float) -> None:
        """Remember where the low-water stands."""
        if self._marks:
            when, low = self._marks[-1]
            if low == self.low or now - when < _MARK_EVERY:
                return
        self._marks.append((now, self.low))
        while len(self._marks) > 1 and self._marks[1][0] <= self._long_at - VERY_LATE:
            self._marks.popleft()

    def _before(self, then: float) -> int:
        """Where the low-water stood at `then`, or a little earlier; 0 when nothing is known of that time."""
        return next((low for when, low in reversed(self._marks) if when <= then), 0)


@dataclass(slots=True)
class LookBack:
    """How far the next claim looks back: not at all, LATE, VERY_LATE, or to the start of each line (infinity).

    A claim that the one before left nearly nothing always does: it costs nothing there. Under a backlog one claim in a
    while does, at most a twentieth of the time.

    Where nearly nothing is left, one looks every second past anything that can be under way: what somebody else was
    taking apart may have come to lie behind, and he may be gone. And once per `full_interval` one reads from the start,
    whatever was late and why. Those that cost much come less often, but not by much: they may only have waited for
    PostgreSQL.
    """

    full_interval: float
    _rest_at: float = 0.0
    _late_at: float = 0.0
    _full_at: float = 0.0

    def reach(self, now: float, *, nearly_empty: bool) -> float:
        """Seconds to look back."""
        if now >= self._full_at:
            return math.inf
        if nearly_empty:
            return VERY_LATE if now >= self._rest_at else LATE
        return LATE if now >= self._late_at else 0.0

    def done(self, reach: float, now: float, cost: float) -> None:
        """A claim that looked back that far took `cost` seconds."""
        if reach:
            self._late_at = now + min(max(_MARK_EVERY, _SHARE * cost), self.full_interval)
        if reach >= VERY_LATE:
            self._rest_at = now + min(max(_REST, _SHARE * cost), self.full_interval)
        if reach == math.inf:
            self._full_at = now + min(max(1.0, _SHARE * cost / self.full_interval), _SELDOM) * self.full_interval
