"""Channels with limits, and which tasks got through."""

from __future__ import annotations

from collections.abc import Sequence

from queued_tasks.runtime.gates import Gate, parse_limits
from queued_tasks.runtime.store.gates import GateStore
from queued_tasks.runtime.task import Claimed, NewTask
from tests.store import Store


async def limit(store: Store, text: str, channel: str = "mail", *, paused: bool = False) -> None:
    gate = parse_limits(channel, text)
    await GateStore(store.session).set(Gate(channel, gate.cap, gate.per_server, gate.key_cap, gate.rate, paused=paused))


def ids(tasks: Sequence[Claimed | NewTask]) -> list[object]:
    return [task.id for task in tasks]
