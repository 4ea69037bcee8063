"""The limits of channels as the database holds them, and how full the channels are."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
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

    async def change(self, channel: str, change: Callable[[Gate], Gate]) -> Gate:
        """Set what `change` makes of a channel's limits, at once and for all servers. What runs goes on, and counts.

        Of two who change them at the same time one sees what the other has set.
        """
        async with self._link.transaction() as run:
            await run("lock_gates")
            rows = await run("gate", channel)
            gate = change(_gate(rows[0]) if rows else Gate(channel))
            await run("set_gate", *_arguments(gate, seed=False))
        return gate

    async def seed(self, gates: Iterable[Gate]) -> None:
        """Set the limits of those channels that have none yet, unless somebody has lifted them."""
        for gate in gates:
            await self._link.fetch("set_gate", *_arguments(gate, seed=True))


def _arguments(gate: Gate, *, seed: bool) -> Sequence[object]:
    rate = (None, None) if gate.rate is None else (gate.rate.count, gate.rate.period)
    return gate.channel, gate.cap, gate.per_server, gate.key_cap, *rate, gate.paused, seed


def _gate(row: Row) -> Gate:
    rate = None if row["rate_count"] is None else Rate(row["rate_count"], row["rate_period"])
    return Gate(row["channel"], row["cap"], row["per_server"], row["key_cap"], rate, row["paused"])
