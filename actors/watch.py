"""Tell a lost server from a slow one."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass

from ..runtime.store.servers import Peer
from ..runtime.task import ServerId

SILENCE = 2.5  # seconds without a beat, a little more than one takes
LOOKS = 2  # times that the session lock of a silent server has to be found free, a tick apart
GAP = 6.0  # seconds without news after which nothing is known of the time between


@dataclass(slots=True)
class _Suspect:
    peer: Peer
    free: int = 0


class Watch:
    """Two signs of death. The session lock of a silent server is free: its process is gone. Or it has been silent for
    its lease's time to live, while this server heard from PostgreSQL all along: its host is unreachable.

    A server whose session was cut, but not its process, beats on over another connection, and is left alone.
    Times are readings of a monotonic clock, in seconds.
    """

    def __init__(self, own: ServerId, lease_ttl: float) -> None:
        self._own = own
        self._lease_ttl = lease_ttl
        self._suspects: dict[ServerId, _Suspect] = {}
        self._heard_at = float("-inf")
        self._healthy_since = float("inf")

    def hear(self, peers: Iterable[Peer], now: float) -> None:
        """The beats of all servers, as of now."""
        if now - self._heard_at > GAP:
            self._healthy_since = now
        self._heard_at = now
        before = self._suspects
        self._suspects = {
            peer.id: _Suspect(
                peer, before[peer.id].free if peer.id in before and before[peer.id].peer.beat_at == peer.beat_at else 0
            )
            for peer in peers
            if peer.id != self._own and peer.silent_for > 0
        }

    async def lost(self, now: float, lock_is_free: Callable[[int], Awaitable[bool]]) -> list[Peer]:
        """The servers that are to be given up."""
        return [suspect.peer for suspect in self._suspects.values() if await self._is_lost(suspect, now, lock_is_free)]

    async def _is_lost(self, suspect: _Suspect, now: float, lock_is_free: Callable[[int], Awaitable[bool]]) -> bool:
        peer = suspect.peer
        silent = peer.silent_for + now - self._heard_at
        if silent > self._lease_ttl and now - self._healthy_since > self._lease_ttl:
            return True
        if silent > SILENCE and peer.lock_key is not None:
            suspect.free = suspect.free + 1 if await lock_is_free(peer.lock_key) else 0
        return suspect.free >= LOOKS
