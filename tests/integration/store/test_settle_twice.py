"""Two ends of one attempt in one call: a crash of PostgreSQL took a claim along, or an end was told twice."""

from __future__ import annotations

import math

import pytest

from queued_tasks.runtime.task import Claimed, ServerId
from tests.store import Store, ended, new_task


async def _claimed_twice(store: Store, server: ServerId) -> tuple[Claimed, Claimed]:
    """The same attempt in two claims: a crash of PostgreSQL took the first one along."""
    await store.one()
    first = await store.claim_one(server)
    await store.rows("delete from queued_tasks.lease")
    back = "insert into queued_tasks.bundle (lane, ids, attempt) values ($1, array[$2::uuid], $3)"
    await store.rows(back, first.lane, first.id, first.attempt)
    second = await store.claim_one(server)
    assert (second.id, second.attempt) == (first.id, first.attempt)
    return first, second


@pytest.mark.parametrize("turned", [False, True])
@pytest.mark.parametrize(("delay", "places"), [(60.0, [0, 1, 0]), (0.0, [1, 0, 0]), (math.inf, [0, 0, 1])])
async def test_of_two_ends_of_an_attempt_the_one_whose_lease_is_held_counts(
    store: Store, delay: float, places: list[int], turned: bool
) -> None:
    server = await store.server()
    first, second = await _claimed_twice(store, server)
    lost = ended(first, "interrupted", delay=60.0 if delay == 0 else 0.0)
    ends = [lost, ended(second, "failed", delay=delay)]
    settlement = await store.settle(server, *(reversed(ends) if turned else ends))
    assert (settlement.lost, settlement.lined) == (frozenset(), places[0])
    assert [await store.count(table) for table in ("ready", "delayed", "stopped")] == places
    assert await store.rows("select outcome from queued_tasks.attempt") == ["failed"]


async def test_an_end_with_a_retry_that_is_told_twice_in_one_call_is_retried_once(store: Store) -> None:
    await store.one()
    server = await store.server()
    it = await store.claim_one(server)
    settlement = await store.settle(server, *[ended(it, "failed", delay=0.0)] * 2)
    assert (settlement.lost, settlement.lined, await store.count("ready")) == (frozenset(), 1, 1)


async def test_what_a_task_added_is_written_though_it_has_an_end_of_a_lost_claim_too(store: Store) -> None:
    server = await store.server()
    first, second = await _claimed_twice(store, server)
    child = new_task()
    ends = ended(first, "interrupted", delay=0.0), ended(second)
    settlement = await store.settle(server, *ends, added=[(ends[1], [child])])
    assert (settlement.lost, await store.states([child])) == (frozenset(), ["enqueued"])
    assert await store.state(second) == "done"


async def test_what_the_run_of_a_lost_claim_added_is_dropped_with_its_end(store: Store) -> None:
    server = await store.server()
    first, second = await _claimed_twice(store, server)
    child = new_task()
    ends = ended(first), ended(second, "failed", delay=60.0)
    settlement = await store.settle(server, *ends, added=[(ends[0], [child])])
    assert (settlement.lost, settlement.lined, await store.state(child)) == (frozenset(), 0, None)
