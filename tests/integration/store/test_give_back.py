"""Giving back what was claimed and never started."""

from __future__ import annotations

import asyncpg

from queued_tasks.runtime.ids import new_id
from queued_tasks.runtime.task import ServerId
from tests.store import Store, blocked, ended


async def test_a_task_given_back_is_claimed_with_the_same_attempt(store: Store) -> None:
    task = await store.one()
    server = await store.server()
    it = await store.claim_one(server)
    assert await store.tasks.give_back(server, [it], full=[it.lease]) == 1
    again = await store.claim_one(await store.server())
    assert (again.id, again.attempt) == (task.id, 1)


async def test_the_last_task_given_back_takes_the_lease_with_it(store: Store) -> None:
    await store.add(2)
    server = await store.server()
    claimed = await store.claim(server)
    await store.tasks.give_back(server, claimed, full=[claimed[0].lease])
    assert await store.count("lease") == 0


async def test_a_lease_that_would_be_empty_goes_even_when_it_is_not_called_full(store: Store) -> None:
    await store.one()
    server = await store.server()
    it = await store.claim_one(server)
    assert await store.tasks.give_back(server, [it], full=[]) == 1
    assert await store.count("lease") == 0


async def test_what_is_kept_stays_in_the_lease(store: Store) -> None:
    await store.add(3)
    server = await store.server()
    first, second, third = await store.claim(server)
    await store.tasks.give_back(server, [second], full=[])
    assert sorted(await store.rows("select id from queued_tasks.running")) == sorted([first.id, third.id])
    settlement = await store.settle(server, ended(first), ended(third))
    assert (settlement.lost, await store.count("lease")) == (frozenset(), 0)


async def test_a_lease_can_be_settled_and_given_back_in_parts(store: Store) -> None:
    await store.add(2)
    server = await store.server()
    first, second = await store.claim(server)
    await store.settle(server, ended(first), part=[first.lease])
    assert await store.tasks.give_back(server, [second], full=[second.lease]) == 1
    assert await store.count("lease") == 0
    assert (await store.claim_one(server)).id == second.id


async def test_what_has_ended_is_not_given_back(store: Store) -> None:
    await store.one()
    server = await store.server()
    it = await store.claim_one(server)
    await store.settle(server, ended(it), part=[it.lease])
    assert await store.tasks.give_back(server, [it], full=[it.lease]) == 0
    assert await store.count("ready") == 0


async def test_a_repeated_give_back_does_nothing(store: Store) -> None:
    await store.add(2)
    server = await store.server()
    first, _ = await store.claim(server)
    await store.tasks.give_back(server, [first], full=[])
    assert await store.tasks.give_back(server, [first], full=[]) == 0
    assert await store.count("ready") == 1


async def test_another_server_gives_nothing_back(store: Store) -> None:
    await store.one()
    it = await store.claim_one(await store.server())
    assert await store.tasks.give_back(ServerId(new_id()), [it], full=[it.lease]) == 0
    assert await store.count("lease") == 1


async def test_a_task_that_is_to_be_cancelled_is_not_put_back_in_line(store: Store) -> None:
    task = await store.one()
    server = await store.server()
    it = await store.claim_one(server)
    await store.tasks.cancel([task.id], "not wanted")
    assert await store.tasks.give_back(server, [it], full=[it.lease]) == 0
    assert (await store.state(task), await store.count("interrupt")) == ("cancelled", 0)


async def test_a_task_that_is_to_be_stopped_is_resumed_with_the_same_attempt(store: Store) -> None:
    task = await store.one()
    server = await store.server()
    it = await store.claim_one(server)
    await store.tasks.stop([task.id])
    await store.tasks.give_back(server, [it], full=[it.lease])
    assert await store.state(task) == "stopped"
    await store.tasks.resume([task.id])
    assert (await store.claim_one(server)).attempt == 1


async def test_whoever_waits_for_a_task_that_is_cancelled_on_its_way_back_is_notified(store: Store) -> None:
    task = await store.one()
    server = await store.server()
    it = await store.claim_one(server)
    heard: list[object] = []
    listener = (await store.another()).session.connection
    await listener.add_listener("topic", lambda *args: heard.append(args[3]))
    await store.session.fetch("subscribe", [task.id], "topic")
    await store.tasks.cancel([task.id], "not wanted")
    await store.tasks.give_back(server, [it], full=[it.lease])
    await _answered(listener)
    assert heard == [str(task.id)]


async def _answered(connection: asyncpg.Connection) -> None:
    await connection.fetchval("select 1")


async def test_a_give_back_that_waited_for_a_rescue_puts_nothing_in_line(store: Store) -> None:
    await store.one()
    server = await store.server()
    it = await store.claim_one(server)
    rescuer, giver = await store.another(), await store.another()
    peer = await store.peer(server)
    await rescuer.begin()
    await rescuer.servers.rescue(peer)
    given = await blocked(store, giver, giver.tasks.give_back(server, [it], full=[it.lease]))
    await rescuer.commit()
    assert await given == 0
    assert await store.count("ready") == 1
