"""Limits of channels, set and lifted while tasks are claimed: see tests/queue_calls.py."""

from __future__ import annotations

from queued_tasks.runtime.gates import Gate, parse_limits
from queued_tasks.runtime.store.gates import GateStore
from tests.dice import Dice
from tests.queue_calls import Call, World, equal
from tests.queue_model import QueueModel
from tests.store import Store

LIMITS = ["none", "0", "1", "2", "3", "2/server", "/key:1", "3/key:1", "paused"]


def limit(dice: Dice, world: World) -> Call:
    channel, text = dice.pick(["x", "x", "y"]), dice.pick(LIMITS)
    return limited(Gate(channel, paused=True) if text == "paused" else parse_limits(channel, text))


def limited(gate: Gate) -> Call:
    async def run(store: Store) -> None:
        await GateStore(store.session).change(gate.channel, lambda _: gate)

    def follow(model: QueueModel, _: None) -> None:
        model.limit(gate)

    said = f"limit {gate.channel} to {gate.limits or 'any number'}{', paused' if gate.paused else ''}"
    return Call(said, run, follow)


def swept(dice: Dice, world: World) -> Call:
    async def run(store: Store) -> int:
        await store.upkeep.add_keys(1000)
        return await store.upkeep.sweep_tokens()

    def follow(_: QueueModel, count: int) -> None:
        equal("tokens that nothing held", count, 0)

    return Call("sweep the channels", run, follow)
