"""Calls of the store as made up by chance: what to call, and how the model follows it and compares the answers."""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import islice
from typing import Any
from uuid import UUID, uuid4

from queued_tasks.runtime.direct import _clones, _source
from queued_tasks.runtime.ids import new_id
from queued_tasks.runtime.store.lanes import Lane
from queued_tasks.runtime.store.link import LeaseLost
from queued_tasks.runtime.task import Claimed, ContextWrite, Executor, LeaseId, LogWrite, NewTask, ServerId, Settled
from tests.dice import Dice
from tests.queue_model import QueueModel
from tests.store import Store, ended, new_task

OUTCOMES: Sequence[tuple[str, float | None]] = [
    *[("done", None)] * 5,
    *[("failed", None)] * 3,
    ("cancelled", None),
    ("failed", 60),
    ("timeout", 60),
    ("retry", 0),
    ("interrupted", 0),
    ("crashed", 0),
    ("stopped", math.inf),
]
PARDONED, MOST_CRASHES = 1, 2  # fewer than servers allow a task, so that some lose their lives by it


@dataclass(frozen=True)
class Call:
    """A call of the store. `follow` lets the model do the same and compares the answers.

    `actor`: a server makes such calls one after another. `again`: the same call for when the answer was lost.
    """

    said: str
    run: Callable[[Store], Awaitable[Any]]
    follow: Callable[[QueueModel, Any], None]
    actor: object = None
    again: Call | None = None


@dataclass
class World:
    """What calls are made of: the model before them, the lines as they stand, and what servers have done and seen.

    `stayed`: what is there after two calls at a time; a clear may overlook what is added or comes back meanwhile, a
    prune what ends and whose children are added.
    """

    model: QueueModel
    lines: list[tuple[Lane, int, UUID]]
    settled: dict[ServerId, list[Settled]]
    seen: dict[tuple[ServerId, int], list[int]]
    turns: dict[tuple[ServerId, int], int]  # the low-waters of lanes where keys take turns
    stayed: Collection[UUID] = ()


def new_tasks(dice: Dice, model: QueueModel, *, most: int = 4) -> list[NewTask]:
    """A batch in which parents come before their children."""
    outside = [*model.tasks, *islice(model.removed, 2)]
    batch: list[NewTask] = []
    for _ in range(1 + dice.below(most)):
        parents: list[UUID] = []
        if dice.chance(2):
            parents = dice.some([*outside[-12:], *(task.id for task in batch)], 3)
        batch.append(
            new_task(
                parents=tuple(parents),
                unique_key=dice.pick([None, None, None, "a", "b"]),
                on_parent_failure=dice.pick(["cascade", "run", "cancel"]),
                auto_remove=dice.chance(3),
                run_at=datetime.now(UTC) + timedelta(hours=1) if dice.chance(6) else None,
                channel=dice.pick(["x", "x", "y"]),
                key=dice.pick([None, None, "a", "b"]),
                priority=dice.pick([0, 0, 5]),
                executor=Executor.SYNC if dice.chance(5) else Executor.ASYNC,
            )
        )
    return batch


def add(dice: Dice, world: World) -> Call:
    tasks = new_tasks(dice, world.model)

    def made(repeat: bool) -> Call:
        def follow(model: QueueModel, losers: dict[UUID, UUID]) -> None:
            equal("losers", losers, model.add(tasks, repeat=repeat))

        said = f"add{' again' if repeat else ''} {described(tasks)}"
        return Call(
            said, lambda store: store.tasks.add(tasks, repeat=repeat), follow, again=None if repeat else made(True)
        )

    return made(False)


def claim(dice: Dice, world: World) -> Call:
    if not any(task.place == "ready" for task in world.model.tasks.values()) and not dice.chance(8):
        return add(dice, world)
    return claimed_by(some_server(dice, world), 1 + dice.below(6), dice, world)


def claimed_by(server: ServerId, limit: int, dice: Dice, world: World) -> Call:
    lease = LeaseId(new_id())
    lows, answered, all = dice.chance(4), not dice.chance(8), not dice.chance(4)
    cuts, kept = [dice.below(8) for _ in range(4)], dice.below(64)

    def low(lane: Lane) -> int:
        if lows and (turn := world.turns.get((server, lane.id))):
            return turn
        seen = [0, *world.seen.get((server, lane.id), [])]
        return seen[-1 - cuts[lane.id % 4] % len(seen)] if lows else 0

    async def run(store: Store) -> list[Claimed] | None:
        await store.tasks.lanes.refresh()
        lanes = [lane for lane in store.tasks.lanes if all or kept >> lane.id % 6 & 1]
        try:
            claim = await store.tasks.claim(server, lease, [(lane, rank(lane), low(lane)) for lane in lanes], limit)
            world.turns |= {(server, id): low for id, low in claim.lows.items()}
            return claim.tasks
        except LeaseLost:
            return None

    def room(model: QueueModel, channel: str, most: int) -> int:
        return int(max(min(model.room(channel, server), most), 0))

    def expected(model: QueueModel) -> list[UUID]:
        lined = [
            (rank(lane), seq, id, lane)
            for lane, seq, id in world.lines
            if seq > low(lane) and (all or kept >> lane.id % 6 & 1)
        ]
        line = sorted(lined, key=lambda it: it[:2])
        while line:
            places = [[it for it in line if it[3].channel == channel] for channel in {it[3].channel for it in line}]
            let = [it for its in places for it in islice(its, room(model, its[0][3].channel, len(its)))]
            head = sorted(let, key=lambda it: it[:2])[:limit]
            if live := [id for _, _, id, _ in head if id in model.tasks and not model.tasks[id].end]:
                return live
            passed = {it[3].id: it[1] for it in head}
            line = [it for it in line if it[1] > passed.get(it[3].id, 0)] if head else []
        return []

    def follow(model: QueueModel, claimed: list[Claimed] | None) -> None:
        equal("whether the lease was lost", claimed is None, server not in model.servers)
        if claimed is None:
            return
        in_order = [it.id for it in sorted(claimed, key=lambda it: it.seq)]
        if model is world.model and not any(gate.key_cap for gate in model.gates.values()):
            equal("claimed", sorted(in_order), sorted(expected(model)))
        model.claim(server, lease, claimed, answered=answered)

    said = f"claim {limit} for {short(server)} as {short(lease)}{'' if answered else ', unanswered'}"
    return Call(said, run, follow)


def settle(dice: Dice, world: World) -> Call:
    servers = [*dict.fromkeys(server for server, _ in world.model.hands)]
    if not servers:
        return claim(dice, world)
    lost = [server for server in servers if server not in world.model.servers]
    server = dice.pick(lost if lost and dice.chance(2) else servers)
    hand = world.model.hand(server)
    ends = [settled_by(dice, it) for it in dice.some(hand, 3)]
    complaints = [it for it in hand if any(end.id == it.id for end in ends) and dice.chance(6)]
    adder = dice.pick(ends)
    added = new_tasks(dice, world.model, most=2) if dice.chance(6) else []
    ids = {(end.lease, end.id) for end in ends}
    if dice.chance(4):
        ends = [*world.settled.get(server, []), *ends]  # whose answer was lost
    left = {it.lease for it in hand if (it.lease, it.id) not in ids}
    leases = dict.fromkeys(end.lease for end in ends)
    full, part = [lease for lease in leases if lease not in left], [lease for lease in leases if lease in left]

    async def run(store: Store) -> tuple[set[UUID], int]:
        world.settled[server] = ends
        logs = [LogWrite(it, 0.0, 40, "test", "no", None) for it in complaints]
        contexts = [ContextWrite(it, 1, "{}") for it in complaints]
        adding = [(adder, added)] if added else []
        done = await store.tasks.settle(server, ends, full=full, part=part, contexts=contexts, logs=logs, added=adding)
        return {*done.lost}, done.lined

    def follow(model: QueueModel, answer: tuple[set[UUID], int]) -> None:
        lost, lined = model.settle(server, ends, full, part, {it.id for it in complaints})
        last = max(end.lease for end in ends if end.id == adder.id)
        if added and adder.id not in lost and adder.lease == last:
            model.add(added, repeat=True)
            lined += len(added)
        equal("lost", answer[0], lost)
        same_count("lined by settling", answer[1], lined, model, world)

    outcomes = ", ".join(f"{short(end.id)}#{end.attempt} {end.outcome} {end.delay}" for end in ends)
    said = f"settle for {short(server)} full {shorts(full)} part {shorts(part)}: {outcomes}; adds {described(added)}"
    call = Call(said, run, follow, actor=server)
    return Call(said, run, follow, actor=server, again=call)


def all_done(server: ServerId, world: World) -> Call:
    ends = [ended(it) for it in world.model.hand(server)]
    full = [*dict.fromkeys(end.lease for end in ends)]

    async def run(store: Store) -> frozenset[UUID]:
        return (await store.tasks.settle(server, ends, full=full, part=[])).lost

    def follow(model: QueueModel, lost: frozenset[UUID]) -> None:
        equal("lost at last", lost, model.settle(server, ends, full, [])[0])

    return Call(f"all done for {short(server)}", run, follow)


def settled_by(dice: Dice, it: Claimed) -> Settled:
    outcome, delay = dice.pick(OUTCOMES)
    return ended(it, outcome, delay=delay)


def give_back(dice: Dice, world: World) -> Call:
    servers = [*dict.fromkeys(server for server, _ in world.model.hands)]
    if not servers:
        return claim(dice, world)
    server = dice.pick(servers)
    hand = world.model.hand(server)
    back = dice.some(hand, 4)
    claims = {(it.lease, it.id) for it in back}
    left = {it.lease for it in hand if (it.lease, it.id) not in claims}
    full = [lease for lease in dict.fromkeys(it.lease for it in back) if lease not in left]

    def follow(model: QueueModel, lined: int) -> None:
        same_count("given back", lined, model.give_back(server, claims, full), model, world)

    said = f"give_back for {short(server)}: {[f'{short(it.id)} of {short(it.lease)}' for it in back]}"
    call = Call(said, lambda store: store.tasks.give_back(server, back, full=full), follow, actor=server)
    return Call(call.said, call.run, call.follow, actor=server, again=call)


def drop_lease(dice: Dice, world: World) -> Call:
    if not world.model.doubtful:
        return claim(dice, world)
    return dropped(*dice.pick(world.model.doubtful))


def dropped(server: ServerId, lease: UUID) -> Call:
    def follow(model: QueueModel, _: None) -> None:
        model.drop_lease(server, lease)

    return Call(f"drop_lease {short(lease)}", lambda store: store.tasks.drop_lease(server, LeaseId(lease)), follow)


def cancel(dice: Dice, world: World) -> Call:
    ids = some_ids(dice, world)

    async def run(store: Store) -> tuple[set[UUID], set[UUID]]:
        done = await store.tasks.cancel(ids, "no")
        return {*done.ended}, {*done.asked}

    def follow(model: QueueModel, answer: tuple[set[UUID], set[UUID]]) -> None:
        equal("cancelled (ended, asked)", answer, model.cancel(ids))

    return Call(f"cancel {shorts(ids)}", run, follow)


def stop(dice: Dice, world: World) -> Call:
    ids = some_ids(dice, world)

    def follow(model: QueueModel, asked: Sequence[UUID]) -> None:
        equal("asked to stop", {*asked}, model.stop(ids))

    return Call(f"stop {shorts(ids)}", lambda store: store.tasks.stop(ids), follow)


def resume(dice: Dice, world: World) -> Call:
    stopped = [task.id for task in world.model.tasks.values() if task.place == "stopped"]
    return resumed(dice.some(stopped, 3) if stopped and not dice.chance(4) else some_ids(dice, world))


def resumed(ids: Sequence[UUID]) -> Call:
    def follow(model: QueueModel, answer: Sequence[UUID]) -> None:
        equal("resumed", {*answer}, model.resume(ids))

    return Call(f"resume {shorts(ids)}", lambda store: store.tasks.resume(ids), follow)


def retry(dice: Dice, world: World) -> Call:
    """By hand, with all that ended because of it. Not one transaction: what it adds is told by the answer."""
    over = [task.id for task in world.model.tasks.values() if task.end]
    bad = [id for id in over if world.model.tasks[id].end != "done"]
    if not over:
        return add(dice, world)
    id = dice.pick(bad or over)

    async def run(store: Store) -> tuple[list[NewTask], dict[UUID, UUID]]:
        rows = await store.session.fetch("retry_source", [id])
        rows += await store.session.fetch(
            "retry_source", [row["id"] for row in await store.session.fetch("ended_with", id)]
        )
        clones = _clones([(_source(row["id"], row), row) for row in rows])
        return clones, await store.tasks.add(clones)

    def follow(model: QueueModel, answer: tuple[list[NewTask], dict[UUID, UUID]]) -> None:
        clones, losers = answer
        equal("retried", len(clones), 1 + len(model.ended_with(id)))
        equal("losers", losers, model.add(clones, repeat=False))

    return Call(f"retry {short(id)} and its family", run, follow)


def rescue(dice: Dice, world: World) -> Call:
    server = some_holder(dice, world)

    async def run(store: Store) -> int | None:
        beat_at = await store.value("select beat_at from queued_tasks.heartbeat where server = $1", server)
        beat_at = beat_at or datetime.now(UTC)
        lined = await store.session.fetch_value("rescue", server, beat_at, PARDONED, MOST_CRASHES)
        return None if lined is None else int(lined)

    def follow(model: QueueModel, lined: int | None) -> None:
        expected = model.rescue(server, PARDONED, MOST_CRASHES)
        equal("whether it was rescued", lined is None, expected is None)
        same_count("lined by the rescue", lined or 0, expected or 0, model, world)

    return Call(f"rescue {short(server)}", run, follow)


def some_server(dice: Dice, world: World) -> ServerId:
    """Mostly one that lives."""
    gone = [server for server in world.settled if server not in world.model.servers]
    return dice.pick(gone) if gone and dice.chance(10) else dice.pick(world.model.servers)


def some_holder(dice: Dice, world: World) -> ServerId:
    """Mostly one that holds something."""
    holders = [*dict.fromkeys(held.server for held in world.model.leases.values())]
    return dice.pick(holders) if holders and not dice.chance(4) else some_server(dice, world)


def some_ids(dice: Dice, world: World) -> list[UUID]:
    """Mostly of unfinished tasks."""
    open = [task.id for task in world.model.unfinished()]
    ids = open if open and not dice.chance(5) else [*world.model.tasks, *islice(world.model.removed, 2)]
    return dice.some(ids, 3) or [uuid4()]


def rank(lane: Lane) -> int:
    return -2 * lane.priority + (not lane.again)


def equal(what: str, found: object, expected: object) -> None:
    assert found == expected, f"{what}: {found}, not {expected}"


def same_count(what: str, found: int, expected: int, model: QueueModel, world: World) -> None:
    """How many may be claimed now. A child may also be let go by whoever adds it at the same time, and says so."""
    assert found == expected or (model is not world.model and found < expected), f"{what}: {found}, not {expected}"


def short(id: UUID) -> str:
    return id.hex[-5:]


def shorts(ids: Sequence[UUID]) -> list[str]:
    return [short(id) for id in ids]


def described(tasks: Sequence[NewTask]) -> str:
    return ", ".join(_traits(task) for task in tasks)


def _traits(task: NewTask) -> str:
    def traits() -> Iterator[str]:
        yield short(task.id)
        if task.parents:
            yield f"{task.on_parent_failure} after {'+'.join(shorts(task.parents))}"
        if task.unique_key:
            yield f"key {task.unique_key}"
        if task.auto_remove:
            yield "auto_remove"
        if task.run_at:
            yield "later"
        yield f"in {task.channel}{task.priority}{'s' if task.executor is Executor.SYNC else ''}"

    return " ".join(traits())
