"""Bundles: tasks that came into a line together stand there as one row, and nobody can tell."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta

import pytest

from tests.limits import ids, limit
from tests.store import Store, blocked, ended, new_task


async def _sizes(store: Store) -> list[int]:
    return await store.rows("select cardinality(ids) from queued_tasks.bundle order by seq")


async def test_tasks_of_one_call_share_rows_in_their_order(store: Store) -> None:
    tasks = await store.add(150)
    assert await _sizes(store) == [64, 64, 22]
    assert await store.rows("select id from queued_tasks.ready order by seq") == [task.id for task in tasks]


async def test_what_goes_elsewhere_is_left_out_of_a_bundle(store: Store) -> None:
    later = datetime.now(UTC) + timedelta(hours=1)
    tasks = [new_task() for _ in range(4)]
    delayed = new_task(run_at=later)
    child = new_task(parents=(tasks[0].id,))
    await store.tasks.add([*tasks[:2], delayed, child, *tasks[2:]])
    assert await store.rows("select id from queued_tasks.ready order by seq") == [task.id for task in tasks]


@pytest.mark.parametrize("fields", [{"key": "a"}, {"channel": "mail"}])
async def test_what_limits_may_pick_out_stands_by_itself(store: Store, fields: dict[str, str]) -> None:
    await limit(store, "2")
    await store.add(3, **fields)
    assert await _sizes(store) == [1, 1, 1]


async def test_a_repeated_add_does_not_line_up_what_is_there(store: Store) -> None:
    tasks = await store.add(10)
    more = [new_task() for _ in range(5)]
    await store.tasks.add([*tasks, *more], repeat=True)
    assert await store.rows("select id from queued_tasks.ready order by seq") == [task.id for task in (*tasks, *more)]


async def test_a_claim_leaves_the_rest_of_a_bundle_in_its_place(store: Store) -> None:
    tasks = await store.add(150) + [await store.one()]
    server = await store.server()
    seqs: list[int] = []
    for count in (1, 40, 70, 30, 20):
        seqs += [it.seq for it in await store.claim(server, count, low=max(seqs, default=0))]
    claims = await store.rows("select u.id from queued_tasks.lease l, unnest(l.ids) u (id) order by u.id")
    assert claims == [task.id for task in tasks]
    assert seqs == sorted(set(seqs))
    assert await store.count("bundle") == 0


async def test_the_rest_of_a_bundle_is_ahead_of_what_came_later(store: Store) -> None:
    first, urgent = await store.add(10), await store.add(3, priority=1)
    later = await store.add(5)
    server = await store.server()
    got = [it.id for count in (5, 4, 9) for it in await store.claim(server, count)]
    assert got == [task.id for task in (*urgent, *first, *later)]


async def test_a_claim_that_rolls_back_leaves_a_bundle_whole(store: Store) -> None:
    tasks = await store.add(20)
    other = await store.another()
    server = await store.server()
    await other.begin()
    await other.claim(server, 7)
    await other.session.connection.execute("rollback")
    assert [it.id for it in await store.claim(server, 50)] == [task.id for task in tasks]


async def test_a_claim_passes_over_bundles_that_others_are_claiming_from(store: Store) -> None:
    tasks = await store.add(300)
    other = await store.another()
    server = await store.server()
    await other.begin()
    taken = await other.claim(server, 5)
    (bundle,) = await store.rows("select cardinality(ids) from queued_tasks.bundle order by seq limit 1")
    got = await store.claim(server, 200)
    await other.commit()
    assert [it.id for it in got] == [task.id for task in tasks[bundle : bundle + 200]]
    left = await store.claim(server, 300)
    assert {it.id for it in (*taken, *got, *left)} == {task.id for task in tasks}


async def test_a_claim_waits_a_moment_for_what_others_leave_of_the_only_bundle(store: Store) -> None:
    tasks = await store.add(20)
    other, claimer = await store.another(), await store.another()
    server = await store.server()
    await other.begin()
    await other.claim(server, 8)
    claim = await blocked(store, claimer, claimer.claim(server, 5))
    await other.commit()
    assert [it.id for it in await claim] == [task.id for task in tasks[8:13]]


async def test_a_claim_does_not_wait_for_ever_for_the_only_bundle(store: Store) -> None:
    await store.add(20)
    other = await store.another()
    server = await store.server()
    await other.begin()
    await other.claim(server, 8)
    assert await store.claim(server, 5) == []
    assert await store.value("select current_setting('lock_timeout')") == "0"


async def test_tasks_of_one_call_keep_their_order_across_lanes(store: Store) -> None:
    channels = "aaabbabcccccca"
    tasks = [new_task(channel=channel) for channel in channels]
    await store.tasks.add(tasks)
    server = await store.server()
    assert [it.id for it in await store.claim(server)] == [task.id for task in tasks]
    assert await store.count("bundle") == 0


async def test_a_channel_that_gets_a_limit_lets_through_so_many_of_a_bundle(store: Store) -> None:
    tasks = await store.add(100, channel="mail")
    urgent = await store.add(2, channel="mail", priority=1)
    await limit(store, "3")
    server = await store.server()
    first = await store.claim(server)
    assert ids(first) == ids([*urgent, tasks[0]])
    await store.settle(server, *(ended(it) for it in first))
    assert ids(await store.claim(server)) == ids(tasks[1:4])


async def test_bundles_of_a_channel_that_gets_a_limit_per_key_take_one_turn(store: Store) -> None:
    tasks = await store.add(5, channel="mail")
    keyed = await store.add(3, channel="mail", key="a")
    await limit(store, "/key:1")
    assert ids(await store.claim(await store.server(), 3)) == ids([keyed[0], *tasks[:2]])


async def test_a_bundle_that_came_while_the_limit_per_key_was_set_is_untied_in_parts(store: Store) -> None:
    late = await store.another()
    await store.one(channel="mail")
    await late.tasks.lanes.refresh()
    await late.begin()
    tasks = await late.add(130, channel="mail")
    await limit(store, "/key:1")
    await late.commit()
    server = await store.server()
    assert len(await store.claim(server, 130)) == 1
    assert [await store.value("select queued_tasks.add_keys(64)") for _ in range(4)] == [64, 64, 2, 0]
    assert ids(await store.claim(server, 130)) == ids(tasks)


async def test_clearing_takes_what_it_shall_out_of_a_bundle(store: Store) -> None:
    tasks = [new_task(name=name) for name in "abbaacb"]
    await store.tasks.add(tasks)
    assert await store.session.fetch_value("clear", "b", None) == 3
    left = [task for task in tasks if task.name != "b"]
    assert await store.rows("select id from queued_tasks.ready order by seq") == [task.id for task in left]
    assert await store.value("select queued_tasks.backlog()") is not None
    assert ids(await store.claim(await store.server())) == ids(left)


async def test_what_is_cancelled_in_a_bundle_is_passed_over(store: Store) -> None:
    tasks = await store.add(10)
    await store.tasks.cancel([task.id for task in tasks[2:5]], "not wanted")
    assert (await store.rows("select in_line from queued_tasks.backlog()")) == [7]
    assert ids(await store.claim(await store.server())) == ids([*tasks[:2], *tasks[5:]])


@pytest.mark.parametrize("together", [True, False])
async def test_claims_under_way_hold_no_more_than_they_take(store: Store, together: bool) -> None:
    tasks = await store.add(640) if together else [await store.one() for _ in range(64)]
    server = await store.server()
    claimers = [await store.another() for _ in range(6)]
    taken: list[object] = []
    for claimer in claimers:
        await claimer.begin()
        taken += ids(await claimer.claim(server, 1 if together else 8))
    assert len(set(taken)) == (6 if together else 48)
    for claimer in claimers:
        await claimer.commit()
    assert {*taken, *ids(await store.claim(server, 1_000))} == {*ids(tasks)}


async def test_claims_that_come_at_once_share_the_only_bundle(store: Store) -> None:
    await store.add(16)
    server = await store.server()
    claimers = [await store.another() for _ in range(8)]
    claims = await asyncio.gather(*(claimer.claim(server, 2) for claimer in claimers))
    assert [len(claim) for claim in claims] == [2] * 8


async def test_a_limit_per_key_finds_all_that_came_late_however_it_is_bundled(store: Store) -> None:
    late = await store.another()
    await store.one(channel="mail")
    await late.tasks.lanes.refresh()
    await late.begin()
    await late.add(300, channel="mail")
    await limit(store, "/key:1")
    await late.commit()
    while await store.upkeep.add_keys(100) >= 100:
        pass
    assert await store.value("select count(*) from queued_tasks.bundle where key is null") == 0


async def test_a_bundle_that_comes_while_others_are_untied_waits_for_its_turn(store: Store) -> None:
    await limit(store, "1")
    await store.add(64, channel="mail")
    await store.session.connection.execute("""
        with tied as (delete from queued_tasks.bundle returning lane, ids)
        insert into queued_tasks.bundle (lane, ids, attempt)
        select lane, array_agg(u.id order by u.id), 1 from tied cross join lateral unnest(ids) u (id) group by lane
    """)
    places = await store.rows(
        "select (queued_tasks.in_order(array_agg(id), array[0], array[0], 5)).places from queued_tasks.lane"
    )
    assert places == [None]
    assert len(await store.claim(await store.server(), 10)) == 1


async def test_a_claim_of_bundles_and_lone_tasks_takes_as_many_as_it_wants(store: Store) -> None:
    lone = [await store.one() for _ in range(30)]
    many = await store.add(200)
    last = [await store.one() for _ in range(30)]
    server, holder = await store.server(), await store.another()
    await holder.begin()
    held = await holder.claim(server, 45)  # the lone ones, and a bundle of which it leaves some
    taken = await store.claim(server, 160)
    await holder.commit()
    assert ids(held) == ids([*lone, *many[:15]])
    free = ids([*many[64:], *last])
    assert ids(taken) == free[:160]
    assert len(await store.claim(server, 1_000)) == 260 - 45 - 160
