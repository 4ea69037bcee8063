"""The lanes that exist: a channel and a priority, and whether they hold tasks that come back from an interruption."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from .link import Link


@dataclass(frozen=True, slots=True)
class Lane:
    id: int
    channel: str
    priority: int
    again: bool


class Lanes:
    """What this process knows of the lanes. They are never removed, so what is known stays true."""

    def __init__(self, link: Link) -> None:
        self._link = link
        self._known: dict[int, Lane] = {}
        self._ids: dict[tuple[str, int], int] = {}

    def __iter__(self) -> Iterable[Lane]:
        return iter(self._known.values())

    def id_of(self, channel: str, priority: int) -> int:
        """The lane of a pair that `ensure` has seen."""
        return self._ids[channel, priority]

    async def ensure(self, pairs: set[tuple[str, int]]) -> None:
        """Make the lanes of these channels and priorities, unless they are known to exist."""
        if pairs <= self._ids.keys():
            return
        channels, priorities = zip(*sorted(pairs - self._ids.keys()), strict=True)
        await self._link.fetch("ensure_lanes", channels, priorities)
        await self.refresh()

    async def refresh(self) -> None:
        """Read them all again: other processes make new ones."""
        for row in await self._link.fetch("lanes"):
            lane = Lane(row["id"], row["channel"], row["priority"], row["again"])
            self._known[lane.id] = lane
            if not lane.again:
                self._ids[lane.channel, lane.priority] = lane.id
