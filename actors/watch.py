"""Tell a lost server from a slow one.

A killed supervisor is given up within three seconds: a look, half a second after its death at most, finds its session
lock free, and so do the five that follow half a second apart, without a beat between them. A live server beats every
2 seconds over another connection, and at once when it has a new session: it is never silent for as long as six looks
take. So neither the end of its session nor that of all sessions, when PostgreSQL is restarted, is taken for its death:
what counts was seen after that.

Time is the watcher's own, so that no jump of a clock makes anybody look dead.

Among many servers each looks at the next few in the circle of their ids, or all looks together would cost the square of
their number. When many die at once the circle closes over those that were rescued, and beats are heard of all.
"""

from __future__ import annotations

from bisect import bisect
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime

from ..runtime.store.servers import Peer
from ..runtime.task import ServerId

LOOK_EVERY = 0.5  # seconds
LOOKS = 6  # in a row that find the lock free, with no beat between them
WATCHED = 8  # peers whose locks one server looks at; each is looked at by as many
GAP = 6.0  # seconds without news after which nothing is known of the time between


@dataclass(slots=True)
class _Suspect:
    peer: Peer
    silent_since: float
    free: int = 0  # looks


class Watch:
    """Two signs of death. The session lock of a server is free, and it does not beat: its process is gone. Or it has
    been silent for its lease's time to live while this server heard from PostgreSQL: its host is unreachable.

    Times are readings of a monotonic clock, in seconds.
    """

    def __init__(self, own: ServerId, lease_ttl: float) -> None:
        self._own = own
        self._lease_ttl = lease_ttl
        self._suspects: dict[ServerId, _Suspect] = {}
        self._heard_at = float("-inf")

    def hear(self, peers: Iterable[Peer], now: float) -> None:
        """The beats of all servers, as of now."""
        before = self._suspects if self._is_hearing(now) else {}
        # a beat that is new here came after the last hearing, whatever the clock of the database has done since
        earliest = self._heard_at if self._is_hearing(now) else now
        self._heard_at = now
        self._suspects = {
            peer.id: known
            if (known := before.get(peer.id)) and known.peer.beat_at == peer.beat_at
            else _Suspect(peer, silent_since=min(max(now - peer.silent_for, earliest), now))
            for peer in peers
            if peer.id != self._own
        }

    def locks(self) -> dict[ServerId, int]:
        """The session locks to look at."""
        locks = {id: key for id, it in self._suspects.items() if (key := it.peer.lock_key) is not None}
        ids = sorted(locks)
        next_one = bisect(ids, self._own)
        return {id: locks[id] for id in [*ids[next_one:], *ids[:next_one]][:WATCHED]}

    def look(self, free: Mapping[ServerId, datetime], now: float) -> None:
        """Which of these locks are free, and when their servers last beat; every LOOK_EVERY seconds."""
        for id, suspect in self._suspects.items():
            if id not in free:
                suspect.free = 0
            elif free[id] == suspect.peer.beat_at:
                suspect.free += 1
            else:
                self._suspects[id] = _Suspect(replace(suspect.peer, beat_at=free[id]), silent_since=now, free=1)

    def lost(self, now: float) -> list[Peer]:
        """The servers that are to be given up."""
        return [it.peer for it in self._suspects.values() if self._is_hearing(now) and self._is_lost(it, now)]

    def _is_lost(self, suspect: _Suspect, now: float) -> bool:
        return suspect.free >= LOOKS or now - suspect.silent_since > self._lease_ttl

    def _is_hearing(self, now: float) -> bool:
        return now - self._heard_at <= GAP
