"""Rescue: what a lost server held runs again exactly once, whatever was under way."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from uuid import UUID

import pytest

from queued_tasks.runtime.errors import DatabaseUnavailable
from queued_tasks.runtime.lifecycle import MOST_CRASHES, PARDONED
from queued_tasks.runtime.store.link import LeaseLost
from queued_tasks.runtime.store.servers import Beat
from queued_tasks.runtime.task import Claimed
from tests.store import Store, blocked, ended

BEAT = Beat(lock_key=None, state="running", workers=1, slots=1, busy=1, details={})


async def test_what_a_lost_server_held_runs_again(store: Store) -> None:
    tasks = await store.add(3)
    server = await store.server()
    await store.claim(server)
    assert await store.rescue(server) == 3
    again = await store.claim(await store.server())
    assert [(it.id, it.attempt) for it in again] == [(task.id, 2) for task in tasks]


async def test_a_rescue_counts_as_no_failure(store: Store) -> None:
    await store.one()
    server = await store.server()
    await store.claim(server)
    await store.rescue(server)
    it = await store.claim_one(await store.server())
    assert (it.failures, it.crashes) == (0, 0)


async def _lost(store: Store, times: int = 1) -> Claimed:
    """A task that so many servers are lost under, one after the other, as the last of them had claimed it."""
    for _ in range(times):
        server = await store.server()
        claimed = await store.claim_one(server)
        await store.rescue(server)
    return claimed


async def test_the_loss_of_its_server_is_a_crash_of_a_task_that_was_interrupted_often(store: Store) -> None:
    await store.one()
    await _lost(store, PARDONED)
    assert (await _lost(store)).crashes == 0
    it = await store.claim_one(await store.server())
    assert (it.attempt, it.failures, it.crashes) == (PARDONED + 2, 0, 1)
    outcomes = await store.rows("select outcome from queued_tasks.attempt order by attempt")
    assert outcomes == ["interrupted"] * PARDONED + ["crashed"]


async def test_a_task_that_takes_one_server_after_the_other_along_ends_failed(store: Store) -> None:
    task = await store.one(unique_key="k")
    child, other = await store.one(parents=(task.id,)), await store.one(priority=-1)
    for _ in range(PARDONED + MOST_CRASHES - 1):
        server = await store.server()
        assert [it.id for it in await store.claim(server, 1)] == [task.id]
        assert await store.rescue(server) == 1
    lost, server = await store.server("lost"), await store.server()
    claimed = [it.id for it in await store.claim(lost)]
    assert (claimed, await store.rescue(lost)) == ([task.id, other.id], 1)
    assert [it.id for it in await store.claim(server)] == [other.id]
    read = await store.reads.task(task.id)
    assert read is not None
    assert (read.state, read.attempt, read.server) == ("failed", PARDONED + MOST_CRASHES, "lost")
    assert (read.exception_name, read.exception_message) == (
        "WorkerDied",
        "the task's server was lost under it, which counts as a crash after 5 interruptions: 3 times now",
    )
    assert (await store.state(child), await store.count("unique_task")) == ("failed", 0)


async def _lost_together(store: Store, times: int, count: int = 3) -> list[UUID]:
    """Tasks that so many servers are lost under together; those that are claimed by the next one."""
    for _ in range(times):
        server = await store.server()
        assert len(await store.claim(server)) == count
        await store.rescue(server)
    return [it.id for it in await store.claim(await store.server("last"))]


async def test_those_that_one_more_loss_would_end_come_back_one_after_the_other(store: Store) -> None:
    first, *others = await store.add(3)
    assert await _lost_together(store, PARDONED + MOST_CRASHES - 1) == [first.id]
    assert await store.states(others) == ["enqueued"] * 2
    waits = await store.rows("select extract(epoch from run_at - now())::integer from queued_tasks.delayed order by 1")
    assert [round(seconds / 30) for seconds in waits] == [1, 2]


async def test_of_several_that_may_have_taken_the_server_along_none_is_ended(store: Store) -> None:
    await store.add(3)
    await _lost_together(store, PARDONED + MOST_CRASHES - 1)
    await store.rows("update queued_tasks.delayed set run_at = now()")
    await store.upkeep.promote(10)
    (last,) = await store.rows(
        "select id from queued_tasks.server where name = 'last' order by started_at desc limit 1"
    )
    await store.claim(last)
    await store.rescue(last)
    assert await store.rows("select count(*) from queued_tasks.result") == [0]
    assert (await store.count("ready"), await store.count("delayed")) == (1, 2)


async def test_a_wish_is_granted_to_a_task_whose_last_server_is_lost(store: Store) -> None:
    task = await store.one()
    await _lost(store, PARDONED + MOST_CRASHES - 1)
    server = await store.server()
    await store.claim(server)
    await store.tasks.cancel([task.id], "not wanted")
    await store.rescue(server)
    assert await store.state(task) == "cancelled"


@pytest.mark.parametrize(("outcome", "delay"), [("retry", 0.0), ("blocked", 0.0), ("failed", 0.0)])
async def test_only_interruptions_make_the_loss_of_its_server_a_crash(store: Store, outcome: str, delay: float) -> None:
    await store.one()
    server = await store.server()
    for _ in range(PARDONED):
        await store.run(server, outcome, delay=delay)
    await _lost(store)
    assert (await store.claim_one(server)).crashes == 0


async def test_a_retry_that_runs_elsewhere_is_not_ended_by_the_loss_of_the_server_before(store: Store) -> None:
    await store.one()
    await _lost(store, PARDONED + MOST_CRASHES - 1)
    await store.one()
    lost, other = await store.server(), await store.server()
    first, _ = await store.claim(lost)
    await store.settle(lost, ended(first, "failed", delay=0.0), part=[first.lease])
    running = await store.claim_one(other)
    await store.rescue(lost)
    assert (running.id, await store.state(running)) == (first.id, "doing")


async def test_a_second_rescue_finds_nothing(store: Store) -> None:
    await store.one()
    server = await store.server()
    await store.claim(server)
    peer = await store.peer(server)
    await store.servers.rescue(peer)
    assert await store.servers.rescue(peer) is None
    assert await store.count("ready") == 1


async def test_two_rescuers_at_once_rescue_once(store: Store) -> None:
    await store.one()
    server = await store.server()
    await store.claim(server)
    peer = await store.peer(server)
    first, second = await store.another(), await store.another()
    await first.begin()
    await first.servers.rescue(peer)
    late = await blocked(store, second, second.servers.rescue(peer))
    await first.commit()
    assert await late is None
    assert await store.count("ready") == 1


async def test_a_server_that_has_beaten_meanwhile_is_not_rescued(store: Store) -> None:
    await store.one()
    server = await store.server()
    await store.claim(server)
    peer = await store.peer(server)
    await store.servers.beat(server, BEAT)
    assert await store.servers.rescue(peer) is None
    assert await store.count("lease") == 1


async def test_a_beat_that_waits_for_the_rescue_learns_that_the_lease_is_lost(store: Store) -> None:
    server = await store.server()
    peer = await store.peer(server)
    rescuer, lost = await store.another(), await store.another()
    await rescuer.begin()
    await rescuer.servers.rescue(peer)
    beat = await blocked(store, lost, lost.servers.beat(server, BEAT))
    await rescuer.commit()
    with pytest.raises(LeaseLost):
        await beat


async def test_a_rescue_waits_for_a_claim_under_way_and_takes_it_back(store: Store) -> None:
    task = await store.one()
    server = await store.server()
    peer = await store.peer(server)
    claimer, rescuer = await store.another(), await store.another()
    await claimer.begin()
    await claimer.claim(server)
    rescued = await blocked(store, rescuer, rescuer.servers.rescue(peer))
    await claimer.commit()
    assert await rescued == 1
    assert (await store.claim_one(await store.server())).id == task.id


async def test_a_rescue_does_not_wait_long_for_a_transaction_that_does_not_end(store: Store) -> None:
    await store.one()
    server = await store.server()
    claimed = await store.claim_one(server)
    settler = await store.another()
    await settler.begin()
    await settler.settle(server, ended(claimed))
    with pytest.raises(DatabaseUnavailable, match="lock timeout"):
        await store.rescue(server)


async def test_only_locks_that_no_session_holds_are_free(store: Store) -> None:
    held, free, keyless = [await store.server() for _ in range(3)]
    for server, key in ((held, 11), (free, 12)):
        await store.servers.beat(server, replace(BEAT, lock_key=key))
    holder = await store.another()
    await holder.value("select pg_advisory_lock(11)")
    found = await store.servers.free_locks({held: 11, free: 12, keyless: 13})
    assert found == {free: (await store.peer(free)).beat_at}


async def test_a_lock_that_a_peer_looks_at_is_free_to_another(store: Store) -> None:
    server = await store.server()
    await store.servers.beat(server, replace(BEAT, lock_key=11))
    peer = await store.another()
    await peer.begin()
    await peer.servers.free_locks({server: 11})
    assert server in await store.servers.free_locks({server: 11})


async def test_a_lock_that_its_server_holds_no_more_says_nothing_of_it(store: Store) -> None:
    server = await store.server()
    await store.servers.beat(server, replace(BEAT, lock_key=12))
    assert await store.servers.free_locks({server: 11}) == {}


async def test_a_claim_that_waits_for_the_rescue_claims_nothing(store: Store) -> None:
    await store.one()
    server = await store.server()
    peer = await store.peer(server)
    claimer, rescuer = await store.another(), await store.another()
    await rescuer.begin()
    await rescuer.servers.rescue(peer)
    claim = await blocked(store, claimer, claimer.claim(server))
    await rescuer.commit()
    with pytest.raises(LeaseLost):
        await claim
    assert await store.count("ready") == 1


@pytest.mark.parametrize(("outcome", "delay"), [("done", None), ("failed", 60.0), ("interrupted", 0.0)])
async def test_a_rescue_waits_for_a_settlement_under_way_and_respects_it(
    store: Store, outcome: str, delay: float | None
) -> None:
    await store.one()
    server = await store.server()
    it = await store.claim_one(server)
    peer = await store.peer(server)
    settler, rescuer = await store.another(), await store.another()
    await settler.begin()
    await settler.settle(server, ended(it, outcome, delay=delay))
    rescued = await blocked(store, rescuer, rescuer.servers.rescue(peer))
    await settler.commit()
    assert await rescued == 0
    assert await store.count("result") + await store.count("delayed") + await store.count("ready") == 1


async def test_a_rescue_waits_for_a_settlement_of_part_of_a_lease(store: Store) -> None:
    await store.add(2)
    server = await store.server()
    first, second = await store.claim(server)
    peer = await store.peer(server)
    settler, rescuer = await store.another(), await store.another()
    await settler.begin()
    await settler.settle(server, ended(first), part=[first.lease])
    rescued = await blocked(store, rescuer, rescuer.servers.rescue(peer))
    await settler.commit()
    assert await rescued == 1
    assert (await store.claim_one(await store.server())).id == second.id


async def test_a_settlement_that_waits_for_the_rescue_is_lost(store: Store) -> None:
    task = await store.one()
    server = await store.server()
    it = await store.claim_one(server)
    peer = await store.peer(server)
    settler, rescuer = await store.another(), await store.another()
    await rescuer.begin()
    await rescuer.servers.rescue(peer)
    settled = await blocked(store, settler, settler.settle(server, ended(it)))
    await rescuer.commit()
    assert (await settled).lost == {task.id}
    assert await store.state(task) == "enqueued"


async def test_a_settlement_and_a_rescue_of_many_leases_do_not_wait_for_each_other(store: Store) -> None:
    server = await store.server()
    settler, rescuer = await store.another(), await store.another()
    await store.add(60)
    claimed = [it for _ in range(60) for it in await store.claim(server, 1)]
    peer = await store.peer(server)
    part = [it.lease for it in claimed[::2]]
    settled, rescued = await asyncio.gather(
        settler.settle(server, *(ended(it) for it in reversed(claimed)), part=part), rescuer.servers.rescue(peer)
    )
    assert len(settled.lost) == rescued


async def test_only_the_open_attempts_of_a_half_settled_lease_run_again(store: Store) -> None:
    await store.add(4)
    server = await store.server()
    done, retried, delayed, open_ = await store.claim(server)
    settled = [ended(done), ended(retried, "failed", delay=0.0), ended(delayed, "failed", delay=60.0)]
    await store.settle(server, *settled, part=[done.lease])
    assert await store.rescue(server) == 1
    ready = await store.rows("select id, attempt from queued_tasks.ready order by seq")
    assert ready == [(retried.id, 2), (open_.id, 2)]


async def test_a_retry_that_runs_elsewhere_already_is_not_started_again(store: Store) -> None:
    task = await store.one()
    await store.one()
    lost, other = await store.server(), await store.server()
    first, _ = await store.claim(lost)
    await store.settle(lost, ended(first, "failed", delay=0.0), part=[first.lease])
    running = await store.claim_one(other)
    await store.rescue(lost)
    again = await store.claim(other)
    assert (running.id, running.attempt) == (task.id, 2)
    assert task.id not in {it.id for it in again}


async def test_what_was_to_be_cancelled_does_not_run_again(store: Store) -> None:
    task = await store.one()
    server = await store.server()
    await store.claim(server)
    await store.tasks.cancel([task.id], "not wanted")
    assert await store.rescue(server) == 0
    assert (await store.state(task), await store.count("interrupt")) == ("cancelled", 0)


async def test_a_task_that_was_removed_meanwhile_does_no_harm_to_the_rescue(store: Store) -> None:
    gone, task = await store.add(2)
    server = await store.server()
    await store.claim(server)
    await store.rows("select queued_tasks.remove_tasks($1)", [gone.id])
    assert await store.rescue(server) == 1
    assert (await store.claim_one(await store.server())).id == task.id


async def test_a_server_leaves_in_order_when_it_holds_nothing(store: Store) -> None:
    server = await store.server()
    await store.servers.leave(server, "stopped")
    assert await store.count("heartbeat") == 0
    assert await store.rows("select end_reason from queued_tasks.server") == ["stopped"]


async def test_a_server_that_leaves_while_it_holds_leases_stays_to_be_rescued(store: Store) -> None:
    await store.one()
    server = await store.server()
    await store.claim(server)
    await store.servers.leave(server, "stopped")
    assert await store.rescue(server) == 1


async def test_a_repeated_registration_changes_nothing(store: Store) -> None:
    server = await store.server()
    await store.servers.register(server, name="server", host="host", pid=1, version="0", lock_key=None)
    assert (await store.count("server"), await store.count("heartbeat")) == (1, 1)
