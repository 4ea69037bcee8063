"""What this server leaves to its peers at first, when new tasks come and several have room for them."""

from __future__ import annotations

import math
from collections.abc import Sequence

from ..runtime.balance import shares
from ..runtime.intake import ALL
from ..runtime.store.servers import Peer
from ..runtime.task import ServerId

SHORTEST_HOLD = 0.01  # seconds that the others have to take their shares
LONGEST_HOLD = 0.25
CLAIMS = 20  # a hold is as long as so many claims take now: where everything is slow, the others are, too


class Sharing:
    """For a moment after a wake-up this server takes no more than its share. What is left then is anyone's.

    Whoever is alone holds back nothing. Between two beats it takes off what it expects its peers to have taken.
    """

    def __init__(self, server: ServerId) -> None:
        self._server = server
        self._free: dict[ServerId, int] = {}
        self._paces: dict[ServerId, float] = {}
        self._until = 0.0
        self._allowance = 0
        self._hold = LONGEST_HOLD / 5

    def hear(self, peers: Sequence[Peer]) -> None:
        """All servers as of the last beat, this one among them. Nothing is left to those with none of its channels."""
        intake = next((peer.intake for peer in peers if peer.id == self._server), ALL)
        others = [
            peer
            for peer in peers
            if peer.state == "running" and peer.id != self._server and peer.slots and intake.meets(peer.intake)
        ]
        self._free = {peer.id: peer.slots - peer.busy for peer in others}
        self._paces = {peer.id: peer.pace for peer in others}

    def woken(self, count: int, turn: str, free: int, pace: float, now: float) -> float:
        """So many tasks have come to this server, which has `free` slots and this `pace`. Returns the seconds for which
        it holds back from now on; 0 when it does not, or did already.

        `turn` is what all servers were told with it, and decides between equals. Empty: this server set the tasks free.
        """
        if not any(self._free.values()) or not count:
            return 0.0
        begins = now >= self._until
        if begins:
            self._until = now + self._hold
            self._allowance = 0
        rooms = {peer: slots * self._paces[peer] for peer, slots in self._free.items()}
        expected = shares(count, {self._server: free * pace, **rooms}, turn, first=None if turn else self._server)
        self._allowance += expected.pop(self._server)
        for peer, taken in expected.items():
            self._free[peer] = max(self._free[peer] - taken, 0)
        return self._hold if begins else 0.0

    def limit(self, now: float) -> float:
        """How many tasks may be claimed now."""
        return self._allowance if now < self._until else math.inf

    def took(self, count: int, seconds: float) -> None:
        """So many were, by a claim that took that long."""
        self._hold = min(max((self._hold + CLAIMS * seconds) / 2, SHORTEST_HOLD), LONGEST_HOLD)
        self._allowance = max(self._allowance - count, 0)
