"""Channels with a limit per key: how many of a key run at once, and that others have their share."""

from __future__ import annotations

from collections import Counter

from tests.limits import ids, limit
from tests.store import Store, ended


async def test_no_more_than_so_many_of_a_key_run_at_once(store: Store) -> None:
    await limit(store, "20/key:2")
    a = await store.add(5, channel="mail", key="a")
    b = await store.add(1, channel="mail", key="b")
    server = await store.server()
    claimed = await store.claim(server)
    assert sorted(ids(claimed), key=str) == sorted(ids([*a[:2], *b]), key=str)
    await store.settle(server, *(ended(it) for it in claimed))
    assert ids(await store.claim(server)) == ids(a[2:4])


async def test_keys_have_turns_however_many_tasks_one_of_them_has(store: Store) -> None:
    await limit(store, "4/key:2")
    await store.add(1_000, channel="mail", key="a")
    await store.add(3, channel="mail", key="b")
    await store.add(3, channel="mail", key="c")
    server = await store.server()
    seen: Counter[str | None] = Counter()
    for _ in range(5):
        (it,) = await store.claim(server, 1)
        seen[await store.value("select key from queued_tasks.task where id = $1", it.id)] += 1
        await store.settle(server, ended(it))
    assert seen == {"a": 2, "b": 2, "c": 1}


async def test_within_a_key_the_order_of_arrival_holds(store: Store) -> None:
    await limit(store, "/key:1")
    tasks = await store.add(3, channel="mail", key="a")
    server = await store.server()
    order = []
    for _ in tasks:
        it = await store.claim_one(server)
        order.append(it.id)
        await store.settle(server, ended(it))
    assert order == ids(tasks)


async def test_an_urgent_task_of_a_key_goes_first(store: Store) -> None:
    await limit(store, "3/key:2")
    await store.add(3, channel="mail", key="a")
    urgent = await store.one(channel="mail", key="z", priority=1)
    assert ids(await store.claim(await store.server(), 1)) == ids([urgent])


async def test_tasks_without_a_key_share_one_turn_and_have_no_limit_of_their_own(store: Store) -> None:
    await limit(store, "6/key:1")
    await store.add(3, channel="mail", key="a")
    plain = await store.add(4, channel="mail")
    claimed = await store.claim(await store.server())
    assert len(claimed) == 5
    assert set(ids(plain)) < set(ids(claimed))


async def test_tasks_that_stood_in_line_before_there_was_a_limit_per_key_keep_it(store: Store) -> None:
    plain = await store.add(2, channel="mail")
    keyed = await store.add(4, channel="mail", key="a")
    await limit(store, "/key:1")
    server = await store.server()
    assert set(ids(await store.claim(server))) == {*ids(plain), keyed[0].id}


async def test_a_task_without_a_key_that_was_added_while_the_limit_changed_is_found(store: Store) -> None:
    other = await store.another()
    await other.begin()
    late = await other.one(channel="mail")
    await limit(store, "/key:1")
    await other.commit()
    server = await store.server()
    await store.one(channel="mail", key="a")
    assert len(await store.claim(server)) == 1
    assert await store.claim(server) == []
    await store.upkeep.add_keys(100)
    assert ids(await store.claim(server)) == [late.id]


async def test_a_limit_per_key_that_is_lifted_leaves_nothing_behind(store: Store) -> None:
    await limit(store, "/key:1")
    await store.add(3, channel="mail", key="a")
    await store.add(2, channel="mail")
    server = await store.server()
    assert len(await store.claim(server)) == 3
    await limit(store, "none")
    assert len(await store.claim(server)) == 2


async def test_what_comes_back_interrupted_keeps_its_key(store: Store) -> None:
    await limit(store, "/key:1")
    tasks = await store.add(2, channel="mail", key="a")
    server = await store.server()
    await store.settle(server, ended(await store.claim_one(server), "interrupted", delay=0.0))
    assert ids(await store.claim(server)) == ids(tasks[:1])
    assert await store.claim(server) == []


async def test_hundreds_of_keys_are_served_round_after_round(store: Store) -> None:
    await limit(store, "50/key:1")
    for key in range(200):
        await store.add(2, channel="mail", key=f"k{key:03}")
    server = await store.server()
    seen: Counter[str] = Counter()
    for _ in range(4):
        claimed = await store.claim(server)
        keys = await store.rows("select key from queued_tasks.task where id = any($1)", ids(claimed))
        seen.update(keys)
        await store.settle(server, *(ended(it) for it in claimed))
    assert set(seen.values()) == {1}
    assert len(seen) == 200
