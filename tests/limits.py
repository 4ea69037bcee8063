"""Channels with limits, and which tasks got through."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from queued_tasks.runtime.gates import parse_limits
from queued_tasks.runtime.store.gates import GateStore
from queued_tasks.runtime.task import Claimed, NewTask
from tests.store import Store


async def limit(store: Store, text: str, channel: str = "mail", *, paused: bool = False) -> None:
    gate = parse_limits(channel, text)
    await GateStore(store.session).change(channel, lambda _: replace(gate, paused=paused))


def ids(tasks: Sequence[Claimed | NewTask]) -> list[object]:
    return [task.id for task in tasks]
