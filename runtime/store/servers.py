"""Servers in the heartbeat table: joining, beating, leaving, and taking back what a lost one held."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from uuid import UUID

from ..intake import ALL, Intake
from ..lifecycle import MOST_CRASHES, PARDONED
from ..task import Json, ServerId
from .link import LeaseLost, Link


class Intent(StrEnum):
    """What somebody wants a server to do: take tasks; finish what runs and take no more; leave."""

    RUN = "run"
    DRAIN = "drain"
    STOP = "stop"


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a server is to be like; `workers` None: as many as it was started with."""

    intent: Intent
    workers: int | None


@dataclass(frozen=True, slots=True)
class Peer:
    """A server as its heartbeat row shows it; `silent_for` in seconds by the clock of the database."""

    id: ServerId
    name: str
    state: str
    slots: int
    busy: int
    beat_at: datetime
    lock_key: int | None
    silent_for: float
    pace: float = 1.0  # how fast it starts tasks, 1 at best
    intake: Intake = ALL


@dataclass(frozen=True, slots=True, kw_only=True)
class Beat:
    """What a server says of itself."""

    lock_key: int | None
    state: str
    workers: int
    slots: int
    busy: int
    details: Mapping[str, Json]


@dataclass(frozen=True, slots=True)
class News:
    """What a beat brings back: all servers, what is wanted of this one, which of its running tasks are to be cancelled
    or stopped, the newest lane. `overdue`: posted tasks, or some that are due, have no place yet.
    """

    peers: tuple[Peer, ...]
    wanted: Wanted
    cancels: tuple[UUID, ...]
    stops: tuple[UUID, ...]
    newest_lane: int
    overdue: bool


class ServerStore:
    """The heartbeat table, over one link."""

    def __init__(self, link: Link) -> None:
        self._link = link

    async def register(
        self,
        server: ServerId,
        *,
        name: str,
        host: str,
        pid: int,
        version: str,
        lock_key: int | None,
        previous: ServerId | None = None,
        settings: Mapping[str, Json] | None = None,
    ) -> Wanted:
        """Make this incarnation known; from now on it may claim, and has to beat.

        What was wanted of the `previous` one of its process is wanted of it, too; that is returned. `settings`: those
        that have to be alike everywhere.
        """
        told = json.dumps(dict(settings or {}))
        row = await self._link.fetch_one("register", server, name, host, pid, version, lock_key, previous, told)
        assert row is not None, "ids of servers are fresh"
        return Wanted(Intent(row["intent"]), row["wanted_workers"])

    async def direct(
        self, servers: Sequence[ServerId], *, intent: Intent | None = None, workers: int | None = None
    ) -> set[ServerId]:
        """Want something of servers. Those that leave, or are no longer there, are missing from what is returned.

        They see it on their next beat; whoever wants it seen at once has to notify them.
        """
        rows = await self._link.fetch("direct_servers", servers, intent, workers)
        return {ServerId(row["id"]) for row in rows}

    async def beat(self, server: ServerId, beat: Beat) -> News:
        """Renew the lease and read the peers in one round trip.

        Raises:
            LeaseLost: the row is gone; everything that this server held is somebody else's.
        """
        rows = await self._link.fetch(
            "beat",
            server,
            beat.lock_key,
            beat.state,
            beat.workers,
            beat.slots,
            beat.busy,
            json.dumps(dict(beat.details)),
            timeout=5,
        )
        if not rows or not rows[0]["alive"]:
            raise LeaseLost(f"server {server} was given up by its peers")
        peers = (
            Peer(
                row["server"],
                row["name"],
                row["state"],
                row["slots"],
                row["busy"],
                row["beat_at"],
                row["lock_key"],
                row["silent_for"],
                row["pace"],
                _intake(row["channels"], row["excluded_channels"]),
            )
            for row in rows
        )
        own = rows[0]
        wanted = Wanted(Intent(own["intent"]), own["wanted_workers"])
        interrupts = tuple(own["cancels"]), tuple(own["stops"])
        return News(tuple(peers), wanted, *interrupts, own["newest_lane"], own["overdue"])

    async def leave(self, server: ServerId, reason: str) -> None:
        """Go in order: nothing is held any more."""
        async with self._link.transaction() as run:
            await run("lock_heartbeat", server)
            await run("leave", server, reason)

    async def rescue(self, peer: Peer) -> int | None:
        """Take back what a lost server held: how many tasks may run again, None when it beat since or was rescued."""
        lined = await self._link.fetch_value("rescue", peer.id, peer.beat_at, PARDONED, MOST_CRASHES)
        return None if lined is None else int(lined)

    async def orphaned(self) -> list[Peer]:
        """Servers that hold leases without being there: their rows were removed by hand, or they left while a claim of
        theirs was under way. They are there again when this returns, to be rescued.
        """
        rows = await self._link.fetch("revive_orphaned")
        return [Peer(row["server"], row["name"], "draining", 0, 0, row["beat_at"], None, math.inf) for row in rows]

    async def free_locks(self, locks: Mapping[ServerId, int]) -> dict[ServerId, datetime]:
        """Those of these servers whose session lock nobody holds, because the process or its session is gone, and when
        they last beat.
        """
        rows = await self._link.fetch("free_locks", list(locks), list(locks.values()))
        return {row["server"]: row["beat_at"] for row in rows}

    async def session(self) -> int:
        """See Link.session."""
        return await self._link.session()

    async def held(self, server: ServerId, session: int) -> dict[UUID, dict[UUID, int]]:
        """What a server holds as the database knows it: by lease the tasks of which no attempt has ended, with its
        number.
        """
        held: dict[UUID, dict[UUID, int]] = {}
        for lease, id, attempt in await self._link.fetch("held", server, session=session):
            held.setdefault(lease, {})[id] = attempt
        return held


def _intake(only: str | None, never: str | None) -> Intake:
    """What a server says that it takes, in JSON."""
    lists = [tuple(json.loads(text)) if text and text != "[]" else () for text in (only, never)]
    return Intake(*lists) if any(lists) else ALL
