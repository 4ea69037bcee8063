"""Calls of upkeep, and of whoever clears the queue: see tests/queue_calls.py."""

from __future__ import annotations

from tests.dice import Dice
from tests.queue_calls import Call, World, equal
from tests.queue_model import QueueModel
from tests.store import Store


def promote(dice: Dice, world: World) -> Call:
    async def run(store: Store) -> int:
        return (await store.upkeep.promote(1000))[0]

    def follow(model: QueueModel, lined: int) -> None:
        equal("promoted", lined, model.promote())

    return Call("promote", run, follow)


def clear(dice: Dice, world: World) -> Call:
    channel = dice.pick(["x", "y", None])

    def follow(model: QueueModel, count: int) -> None:
        had = world.model.tasks
        came = {id for id in model.tasks if id not in had or had[id].place in ("leased", "stopped", "posted")}
        expected = model.clear(channel, came & {*world.stayed})
        assert model is not world.model or count == expected, f"cleared: {count}, not {expected}"

    return Call(f"clear {channel}", lambda store: store.session.fetch_value("clear", None, channel), follow)


def prune(dice: Dice, world: World) -> Call:
    def follow(model: QueueModel, count: int) -> None:
        added = model.tasks.keys() - world.model.tasks.keys()
        expected = model.prune(() if model is world.model else world.stayed, added)
        assert model is not world.model or count == expected, f"pruned: {count}, not {expected}"

    return Call("prune", lambda store: store.upkeep.prune(-3600, 1000), follow)


def sweep(dice: Dice, world: World) -> Call:
    def follow(model: QueueModel, count: int) -> None:
        expected = model.sweep()
        assert model is not world.model or count == expected, f"swept: {count}, not {expected}"

    return Call("sweep", lambda store: store.upkeep.sweep_children(1000), follow)
