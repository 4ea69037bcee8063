"""The limits of channels as the database holds them, and how full the channels are."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from ..gates import Gate, Rate
from .link import Link, Row


@dataclass(frozen=True, slots=True)
class ChannelRow:
    """A channel: its limits, and how many of its tasks run and stand in line."""

    gate: Gate
    running: int
    waiting: int


class GateStore:
    """Every verb is one transaction, over one link."""

    def __init__(self, link: Link) -> None:
        self._link = link

    async def look(self) -> list[ChannelRow]:
        """All channels that have limits or have ever had a task, by name."""
        rows = await self._link.fetch("channels")
        return [ChannelRow(_gate(row), row["running"], row["waiting"]) for row in rows]

    async def find(self, channel: str) -> Gate:
        """The limits of one channel."""
        row = await self._link.fetch_one("gate", channel)
        return Gate(channel) if row is None else _gate(row)

    async def set(self, gate: Gate) -> None:
        """Set a channel's limits, at once and for all servers. What runs goes on, and counts."""
        await self._set(gate, seed=False)

    async def seed(self, gates: Iterable[Gate]) -> None:
        """Set the limits of those channels that have none yet, unless somebody has lifted them."""
        for gate in gates:
            await self._set(gate, seed=True)

    async def _set(self, gate: Gate, *, seed: bool) -> None:
        await self._link.fetch(
            "set_gate",
            gate.channel,
            gate.cap,
            gate.per_server,
            gate.key_cap,
            gate.rate and gate.rate.count,
            gate.rate and gate.rate.period,
            gate.paused,
            seed,
        )


def _gate(row: Row) -> Gate:
    rate = None if row["rate_count"] is None else Rate(row["rate_count"], row["rate_period"])
    return Gate(row["channel"], row["cap"], row["per_server"], row["key_cap"], rate, row["paused"])
