"""Claiming: most urgent first, each task once, nothing overlooked, nothing that was called off."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest

from queued_tasks.runtime.ids import new_id
from queued_tasks.runtime.store.link import LeaseLost
from queued_tasks.runtime.task import ContextWrite, LeaseId, ServerId
from tests.store import Store, blocked, ended, new_task


async def test_the_higher_priority_goes_first(store: Store) -> None:
    low, high = await store.one(priority=-1), await store.one(priority=5)
    middle = await store.one()
    claimed = await store.claim(await store.server())
    assert [it.id for it in claimed] == [high.id, middle.id, low.id]


async def test_channels_of_one_priority_are_served_in_the_order_of_arrival(store: Store) -> None:
    tasks = [await store.one(channel=channel) for channel in ("a", "b", "b", "a", "c", "a")]
    server = await store.server()
    claimed = await store.claim(server, 4) + await store.claim(server, 4)
    assert [it.id for it in claimed] == [task.id for task in tasks]


async def test_a_small_claim_takes_the_most_urgent_of_all_lanes(store: Store) -> None:
    await store.add(20, channel="a")
    urgent = await store.one(channel="z", priority=1)
    assert [it.id for it in await store.claim(await store.server(), 1)] == [urgent.id]


async def test_what_came_back_interrupted_goes_first(store: Store) -> None:
    server = await store.server()
    first = await store.one()
    it = await store.claim_one(server)
    second = await store.one()
    await store.settle(server, ended(it, "interrupted", delay=0.0))
    assert [again.id for again in await store.claim(server)] == [first.id, second.id]


@pytest.mark.parametrize("claimers", [2, 8])
async def test_concurrent_claimers_share_all_tasks_and_never_see_an_empty_line_before(
    store: Store, claimers: int
) -> None:
    tasks = await store.add(2_000)
    stores = [await store.another() for _ in range(claimers)]
    server = await store.server()
    taken = await asyncio.gather(*(_drain(each, server) for each in stores))
    ids = [id for each in taken for id in each]
    assert sorted(ids) == sorted(task.id for task in tasks)


async def _drain(store: Store, server: ServerId) -> list[UUID]:
    ids: list[UUID] = []
    while claimed := await store.claim(server, 7):
        ids += [it.id for it in claimed]
    return ids


async def test_a_claim_looks_behind_rows_that_others_are_claiming(store: Store) -> None:
    await store.add(400)
    other = await store.another()
    server = await store.server()
    await other.begin()
    held = await other.claim(server, 300)
    got = await store.claim(server, 10)
    await other.commit()
    assert len(got) == 10
    assert not {it.id for it in got} & {it.id for it in held}


async def test_a_claim_fills_up_behind_what_others_are_claiming_and_leaves_nothing_out(store: Store) -> None:
    tasks = [await store.one() for _ in range(40)]
    other = await store.another()
    server = await store.server()
    await other.begin()
    await other.claim(server, 5)
    got = await store.claim(server, 8)
    await other.commit()
    assert [it.id for it in got] == [task.id for task in tasks[5:13]]


async def test_a_claim_is_empty_when_others_are_claiming_all_that_there_is(store: Store) -> None:
    await store.add(400)
    other = await store.another()
    server = await store.server()
    await other.begin()
    await other.claim(server, 400)
    assert await store.claim(server, 10) == []


async def test_a_claim_that_was_rolled_back_leaves_its_tasks_in_line(store: Store) -> None:
    task = await store.one()
    other = await store.another()
    server = await store.server()
    await other.begin()
    await other.claim(server)
    await other.session.connection.execute("rollback")
    assert (await store.claim_one(server)).id == task.id


async def test_a_late_commit_is_found_from_a_lower_low_water(store: Store) -> None:
    late = await store.another()
    server = await store.server()
    await store.add(1)
    await late.tasks.lanes.refresh()
    await late.begin()
    task = await late.one()
    await store.add(3)
    passed = await store.claim(server)
    await late.commit()
    low = max(it.seq for it in passed)
    assert await store.claim(server, low=low) == []
    assert [it.id for it in await store.claim(server, low=passed[0].seq)] == [task.id]


async def test_a_cancelled_task_is_dropped(store: Store) -> None:
    off, on = await store.add(2)
    await store.tasks.cancel([off.id], "not wanted")
    server = await store.server()
    assert [it.id for it in await store.claim(server)] == [on.id]
    assert await store.count("ready") == 0
    assert await store.rows("select ids from queued_tasks.lease") == [[on.id]]


async def test_a_claim_goes_on_behind_many_cancelled_tasks(store: Store) -> None:
    off = await store.add(1_000)
    on = await store.one()
    await store.tasks.cancel([task.id for task in off], "not wanted")
    assert [it.id for it in await store.claim(await store.server(), 5)] == [on.id]


async def test_a_claim_of_nothing_but_cancelled_tasks_leaves_no_lease(store: Store) -> None:
    off = await store.add(3)
    await store.tasks.cancel([task.id for task in off], "not wanted")
    assert await store.claim(await store.server()) == []
    assert await store.count("lease") == 0


async def test_a_removed_task_is_dropped(store: Store) -> None:
    off, on = await store.add(2)
    await store.rows("select queued_tasks.remove_tasks($1)", [off.id])
    assert [it.id for it in await store.claim(await store.server())] == [on.id]
    assert await store.rows("select id from queued_tasks.running") == [on.id]


async def test_an_expired_task_is_said_to_be(store: Store) -> None:
    await store.one(expires_at=datetime.now(UTC) - timedelta(seconds=1))
    assert (await store.claim_one(await store.server())).expired


async def test_a_server_without_its_heartbeat_claims_nothing(store: Store) -> None:
    await store.one()
    server = await store.server()
    await store.rows("delete from queued_tasks.heartbeat")
    with pytest.raises(LeaseLost):
        await store.claim(server)
    assert await store.count("ready") == 1


@pytest.mark.parametrize("field", [{"unique_key": "k"}, {"auto_remove": True}, {"parents": (new_id(),)}])
async def test_what_the_end_has_to_look_after_is_flagged(store: Store, field: dict[str, object]) -> None:
    await store.one(**field)
    assert (await store.claim_one(await store.server())).flagged


async def test_a_later_attempt_knows_of_those_before(store: Store) -> None:
    await store.one()
    server = await store.server()
    for outcome in ("failed", "timeout", "crashed", "interrupted", "retry"):
        await store.settle(server, ended(await store.claim_one(server), outcome, delay=0.0))
    it = await store.claim_one(server)
    assert (it.attempt, it.failures, it.timeouts, it.crashes) == (6, 2, 1, 1)


async def test_a_later_attempt_goes_on_from_the_newest_context(store: Store) -> None:
    await store.one(context='{"at": 0}')
    server = await store.server()
    it = await store.claim_one(server)
    await store.tasks.record(server, [ContextWrite(it, 2, '{"at": 2}')], [])
    await store.settle(server, ended(it, "retry", delay=0.0))
    assert (await store.claim_one(server)).context == '{"at": 2}'


async def test_a_claim_does_not_wait_for_the_disk(store: Store) -> None:
    server = await store.server()
    await store.begin()
    await store.claim(server)
    assert await store.value("select current_setting('synchronous_commit')") == "off"


async def test_what_a_claim_without_an_answer_took_is_put_back(store: Store) -> None:
    tasks = await store.add(3)
    server = await store.server()
    lease = LeaseId(new_id())
    await store.claim(server, lease=lease)
    await store.tasks.drop_lease(server, lease)
    again = await store.claim(server)
    assert [(it.id, it.attempt) for it in again] == [(task.id, 1) for task in tasks]


async def test_a_claim_without_an_answer_that_is_still_under_way_is_waited_for(store: Store) -> None:
    await store.one()
    other = await store.another()
    server = await store.server()
    lease = LeaseId(new_id())
    await other.begin()
    await other.claim(server, lease=lease)
    dropped = await blocked(await store.another(), store, store.tasks.drop_lease(server, lease))
    await other.commit()
    await dropped
    assert await store.count("lease") == 0
    assert await store.count("ready") == 1


async def test_a_claim_that_arrives_after_it_was_given_up_takes_nothing(store: Store) -> None:
    await store.one()
    server = await store.server()
    late = LeaseId(new_id())
    await store.tasks.drop_lease(server, late)
    assert await store.claim(server, lease=late) == []
    assert len(await store.claim(server)) == 1


async def test_a_server_remembers_the_last_hundred_claims_that_it_has_given_up(store: Store) -> None:
    server = await store.server()
    leases = [LeaseId(new_id()) for _ in range(101)]
    for lease in [*leases, leases[-1]]:
        await store.tasks.drop_lease(server, lease)
    assert await store.value("select dropped from queued_tasks.heartbeat") == leases[:0:-1]


async def test_a_claim_of_two_lanes_reads_each_from_its_own_low_water(store: Store) -> None:
    first, second = new_task(channel="a"), new_task(channel="b")
    await store.tasks.add([first, second])
    server = await store.server()
    lanes = {lane.channel: lane for lane in store.tasks.lanes}
    claim = await store.tasks.claim(server, LeaseId(new_id()), [(lanes["a"], 0, 10**9), (lanes["b"], 0, 0)], 10)
    assert [it.id for it in claim.tasks] == [second.id]
