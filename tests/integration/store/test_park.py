"""Parking what a server can't run: in lanes of its functions, and at an end when no server may run it."""

from __future__ import annotations

import asyncio
from typing import Literal

import pytest

from queued_tasks.runtime.gates import parse_limits
from queued_tasks.runtime.store import tasks as task_store
from queued_tasks.runtime.store.gates import GateStore
from queued_tasks.runtime.store.servers import Beat
from queued_tasks.runtime.task import Claimed, Executor, ServerId, Stance
from tests.store import Store, blocked, new_task

REASON = "add it to QUEUE_ALLOWED_MODULES"
Kind = Literal["unknown", "refused"]


async def live(store: Store, *, state: str = "running", workers: int = 1) -> ServerId:
    """A server that beats and has workers."""
    server = await store.server()
    await store.servers.beat(
        server, Beat(lock_key=None, state=state, workers=workers, slots=workers, busy=0, details={})
    )
    return server


async def park(store: Store, server: ServerId, kind: Kind, *claimed: Claimed) -> tuple[int, int]:
    """How many tasks ended, how many may be claimed."""
    stances = {it.function: Stance(it.function, kind, REASON) for it in claimed}
    return await store.tasks.park(server, claimed, [*stances.values()], full=[])


async def decline(store: Store, server: ServerId, kind: Kind, function: str = "app:work") -> tuple[int, int]:
    return await store.tasks.take_stance(server, [Stance(function, kind, REASON)])


async def lanes(store: Store) -> list[str | None]:
    """The functions of the lanes in which tasks stand."""
    return await store.rows("select l.function from queued_tasks.ready y join queued_tasks.lane l on l.id = y.lane")


async def test_a_parked_task_stands_in_the_lane_of_its_function(store: Store) -> None:
    task, server = await store.one(), await live(store)
    assert await park(store, server, "unknown", await store.claim_one(server)) == (0, 1)
    assert (await lanes(store), await store.state(task)) == (["app:work"], "enqueued")


async def test_a_parked_task_is_claimed_with_the_same_attempt(store: Store) -> None:
    await store.one()
    server = await live(store)
    await park(store, server, "unknown", await store.claim_one(server))
    again = await store.claim_one(await live(store))
    assert (again.attempt, again.failures, await store.count("attempt")) == (1, 0, 0)


async def test_the_lease_of_a_parked_task_is_gone(store: Store) -> None:
    await store.one()
    server = await live(store)
    await park(store, server, "unknown", await store.claim_one(server))
    assert await store.count("lease") == 0


async def test_a_parked_task_makes_room_in_its_channel(store: Store) -> None:
    await GateStore(store.session).change("mail", lambda _: parse_limits("mail", "1"))
    unknown, other = await store.add(2, channel="mail")
    server = await live(store)
    it = await store.claim_one(server)
    assert (it.id, await store.claim(server)) == (unknown.id, [])
    assert await park(store, server, "unknown", it) == (0, 2)
    assert (await store.count("token"), await store.state(other)) == (0, "enqueued")


async def test_functions_channels_priorities_and_kinds_of_workers_have_lanes_of_their_own(store: Store) -> None:
    for fields in ({}, {"function": "app:other"}, {"channel": "mail"}, {"priority": 1}, {"executor": Executor.SYNC}):
        await store.one(**fields)
    server = await live(store)
    await park(store, server, "unknown", *await store.claim(server))
    assert await store.value("select count(distinct lane) from queued_tasks.ready") == 5


async def test_a_repeated_park_does_nothing(store: Store) -> None:
    await store.one()
    server = await live(store)
    it = await store.claim_one(server)
    await park(store, server, "unknown", it)
    await store.claim_one(await live(store))
    assert await park(store, server, "unknown", it) == (0, 0)
    assert await store.count("ready") == 0


async def test_new_tasks_of_a_parked_function_go_into_the_ordinary_lane(store: Store) -> None:
    await store.one()
    server = await live(store)
    await park(store, server, "unknown", await store.claim_one(server))
    await store.one()
    assert sorted(await lanes(store), key=str) == [None, "app:work"]


async def test_a_task_that_is_to_be_cancelled_is_not_parked(store: Store) -> None:
    task, server = await store.one(), await live(store)
    it = await store.claim_one(server)
    await store.tasks.cancel([task.id], "not wanted")
    await park(store, server, "unknown", it)
    assert (await store.state(task), await store.count("ready")) == ("cancelled", 0)


async def test_what_the_only_server_refuses_fails_at_once(store: Store) -> None:
    task, server = await store.one(), await live(store)
    assert await park(store, server, "refused", await store.claim_one(server)) == (1, 0)
    end = await store.rows("select state::text, exception_name, exception_message, attempt from queued_tasks.result")
    assert end == [("failed", "InvalidTask", REASON, 0)]
    assert (await store.state(task), await store.count("ready")) == ("failed", 0)


async def test_a_server_counts_although_its_last_beat_came_before_its_first_worker(store: Store) -> None:
    task, server = await store.one(), await store.server()
    await park(store, server, "refused", await store.claim_one(server))
    assert await store.state(task) == "failed"


async def test_what_one_server_refuses_is_left_to_others(store: Store) -> None:
    task, server = await store.one(), await live(store)
    await live(store)
    assert await park(store, server, "refused", await store.claim_one(server)) == (0, 1)
    assert await store.state(task) == "enqueued"


async def test_what_the_last_server_refuses_as_well_fails(store: Store) -> None:
    tasks = await store.add(3)
    server, other = await live(store), await live(store)
    await park(store, server, "refused", *await store.claim(server))
    assert await decline(store, other, "refused") == (3, 0)
    assert await store.states(tasks) == ["failed"] * 3


async def test_what_a_server_may_run_but_does_not_find_waits(store: Store) -> None:
    task, server, other = await store.one(), await live(store), await live(store)
    await park(store, server, "refused", await store.claim_one(server))
    assert await decline(store, other, "unknown") == (0, 0)
    assert await store.state(task) == "enqueued"


@pytest.mark.parametrize(("state", "workers"), [("starting", 0), ("draining", 1), ("blocked", 0), ("running", 0)])
async def test_a_server_that_takes_no_tasks_is_not_waited_for(store: Store, state: str, workers: int) -> None:
    task, server = await store.one(), await live(store)
    await live(store, state=state, workers=workers)
    await park(store, server, "refused", await store.claim_one(server))
    assert await store.state(task) == "failed"


async def test_two_servers_that_refuse_at_the_same_instant_do_not_miss_each_other(store: Store) -> None:
    task, server, other = await store.one(), await live(store), await live(store)
    it = await store.claim_one(server)
    first, second = await store.another(), await store.another()
    await first.begin()
    await park(first, server, "refused", it)
    declined = await blocked(store, second, decline(second, other, "refused"))
    await first.commit()
    assert await declined == (1, 0)
    assert await store.state(task) == "failed"


async def test_it_fails_once_the_last_server_that_did_not_refuse_has_left(store: Store) -> None:
    task, server, other = await store.one(), await live(store), await live(store)
    await park(store, server, "refused", await store.claim_one(server))
    await decline(store, other, "unknown")
    assert await store.upkeep.end_refused(10) == (0, 0)
    await store.servers.leave(other, "stopped")
    assert await store.upkeep.end_refused(10) == (1, 0)
    assert await store.state(task) == "failed"


async def test_nothing_is_refused_while_no_server_takes_tasks(store: Store) -> None:
    task, server, other = await store.one(), await live(store), await live(store)
    await park(store, server, "refused", await store.claim_one(server))
    await store.servers.leave(other, "stopped")
    await store.servers.beat(server, Beat(lock_key=None, state="draining", workers=1, slots=1, busy=0, details={}))
    assert await store.upkeep.end_refused(10) == (0, 0)
    assert await store.state(task) == "enqueued"


@pytest.mark.parametrize("way", ["leave", "rescue"])
async def test_what_a_server_said_goes_with_it(store: Store, way: str) -> None:
    await store.one()
    server = await live(store)
    await park(store, server, "unknown", await store.claim_one(server))
    if way == "leave":
        await store.servers.leave(server, "stopped")
    else:
        await store.rescue(server)
    assert await store.count("stance") == 0


async def test_a_server_that_was_given_up_says_nothing(store: Store) -> None:
    server = await live(store)
    await store.rescue(server)
    assert await decline(store, server, "refused") == (0, 0)
    assert await store.count("stance") == 0


async def test_the_end_of_a_refused_task_is_that_of_any_other(store: Store) -> None:
    parent, server = await store.one(unique_key="key", function="os:system"), await live(store)
    failing = await store.one(parents=(parent.id,))
    running = await store.one(parents=(parent.id,), on_parent_failure="run")
    assert await park(store, server, "refused", await store.claim_one(server)) == (1, 1)
    assert await store.states([failing, running]) == ["failed", "enqueued"]
    assert await store.count("unique_task") == 0


async def test_more_refused_tasks_than_one_transaction_ends_are_ended_by_the_next(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(task_store, "MOST_REFUSED", 2)
    await store.add(5)
    server = await live(store)
    assert await park(store, server, "refused", *await store.claim(server)) == (2, 3)
    assert await decline(store, server, "refused") == (2, 0)
    assert await decline(store, server, "refused") == (1, 0)


async def test_empty_lanes_of_functions_are_removed_with_what_was_said(store: Store) -> None:
    await store.one()
    server = await live(store)
    await park(store, server, "unknown", await store.claim_one(server))
    await store.upkeep.prune_traces(60)
    assert await store.count("stance") == 1
    await store.run(await live(store))
    await store.upkeep.prune_traces(60)
    assert (await store.count("stance"), await store.rows("select function from queued_tasks.lane")) == (0, [None])


async def test_a_parked_task_that_was_cancelled_leaves_its_line(store: Store) -> None:
    cancelled, other = await store.add(2)
    server = await live(store)
    await park(store, server, "unknown", *await store.claim(server))
    await store.tasks.cancel([cancelled.id], "not wanted")
    await store.upkeep.prune_traces(60)
    assert await store.rows("select id from queued_tasks.ready") == [other.id]


async def test_a_lane_into_which_somebody_parks_is_not_removed(store: Store) -> None:
    server = await live(store)
    await store.one()
    await park(store, server, "unknown", await store.claim_one(server))
    await store.run(await live(store))
    await store.one()
    it = await store.claim_one(server)
    parking, pruning = await store.another(), await store.another()
    await parking.begin()
    await park(parking, server, "unknown", it)
    pruned = await blocked(store, pruning, pruning.session.fetch("prune_functions", 10))
    await parking.commit()
    await pruned
    assert await lanes(store) == ["app:work"]


async def test_parked_tasks_do_not_count_as_waiting_for_a_free_slot(store: Store) -> None:
    await store.one()
    server = await live(store)
    await park(store, server, "unknown", await store.claim_one(server))
    (overview,) = await store.session.fetch("overview", 60.0)
    assert overview["oldest_waiting"] is None


async def test_servers_that_park_end_and_prune_at_once_lose_nothing(store: Store) -> None:
    tasks = [new_task(function=f"app:work{number % 7}") for number in range(60)]
    await store.tasks.add(tasks)
    stores = [await store.another() for _ in range(4)]
    servers = [await live(store) for _ in stores]

    async def serve(mine: Store, server: ServerId) -> None:
        for _ in range(15):
            for it in await mine.claim(server, 5):
                await park(mine, server, "unknown" if it.function != "app:work0" else "refused", it)
            await decline(mine, server, "refused", "app:work0")
            await mine.upkeep.prune_traces(60)

    await asyncio.gather(*map(serve, stores, servers))
    await park(store, servers[0], "refused", *await store.claim(servers[0]))
    for server in servers:
        await decline(store, server, "refused", "app:work0")
    ended = [task for task in tasks if task.function == "app:work0"]
    assert await store.states(ended) == ["failed"] * len(ended)
    assert await store.count("ready") == len(tasks) - len(ended)
