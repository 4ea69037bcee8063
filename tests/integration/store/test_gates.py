"""Channels with limits: exact for the whole cluster, whoever claims, ends, dies or changes them meanwhile."""

from __future__ import annotations

import asyncio
import random
from dataclasses import replace

import pytest

from queued_tasks.runtime.gates import Gate, parse_limits
from queued_tasks.runtime.ids import new_id
from queued_tasks.runtime.store.gates import ChannelRow, GateStore
from queued_tasks.runtime.store.tasks import Claim
from queued_tasks.runtime.task import Executor, LeaseId, ServerId
from tests.limits import ids, limit
from tests.store import Store, blocked, ended


async def channel(store: Store, name: str = "mail") -> ChannelRow:
    (row,) = [row for row in await GateStore(store.session).look() if row.gate.channel == name]
    return row


async def claim(store: Store, server: ServerId, count: int = 100) -> Claim:
    """One claim of all lanes, with what it says of the rate."""
    await store.tasks.lanes.refresh()
    return await store.tasks.claim(server, LeaseId(new_id()), [(lane, 0, 0) for lane in store.tasks.lanes], count)


# ---- caps


async def test_no_more_than_the_cap_run_at_once(store: Store) -> None:
    await limit(store, "3")
    tasks = await store.add(10, channel="mail")
    one, other = await store.server("one"), await store.server("other")
    assert ids(await store.claim(one, 2)) == ids(tasks[:2])
    assert ids(await store.claim(other)) == ids(tasks[2:3])
    assert await store.claim(one) == []


@pytest.mark.parametrize(
    ("outcome", "fields"),
    [("done", {}), ("failed", {}), ("failed", {"delay": 60.0}), ("stopped", {"delay": float("inf")})],
)
async def test_the_end_of_an_attempt_lets_the_next_one_in(store: Store, outcome: str, fields: dict[str, float]) -> None:
    await limit(store, "1")
    tasks = await store.add(2, channel="mail")
    server = await store.server()
    first = await store.claim_one(server)
    settlement = await store.settle(server, ended(first, outcome, **fields))
    assert settlement.lined > 0
    assert ids(await store.claim(server)) == ids(tasks[1:])


async def test_what_is_given_back_makes_room_and_stays_first(store: Store) -> None:
    await limit(store, "2")
    tasks = await store.add(4, channel="mail")
    server = await store.server()
    claimed = await store.claim(server)
    await store.tasks.give_back(server, claimed[:1], full=[])
    assert ids(await store.claim(server)) == ids(tasks[:1])
    assert await store.claim(server) == []


async def test_a_rescue_makes_room(store: Store) -> None:
    await limit(store, "2")
    tasks = await store.add(5, channel="mail")
    lost, other = await store.server("lost"), await store.server("other")
    await store.claim(lost)
    await store.rescue(lost)
    assert ids(await store.claim(other)) == ids(tasks[:2])


async def test_a_settlement_that_was_lost_to_a_rescue_frees_nothing(store: Store) -> None:
    await limit(store, "1")
    await store.add(3, channel="mail")
    lost, other = await store.server("lost"), await store.server("other")
    first = await store.claim_one(lost)
    await store.rescue(lost)
    await store.claim_one(other)
    await store.settle(lost, ended(first))
    assert await store.claim(other) == []


async def test_a_rescue_leaves_alone_what_was_settled_before_and_runs_elsewhere(store: Store) -> None:
    await limit(store, "2")
    await store.add(4, channel="mail")
    lost, other = await store.server("lost"), await store.server("other")
    first, _ = await store.claim(lost)
    await store.settle(lost, ended(first, "failed", delay=0.0), part=[first.lease])
    (again,) = await store.claim(other)
    await store.rescue(lost)
    assert (again.id, len(await store.claim(other))) == (first.id, 1)


async def test_a_repeated_settlement_leaves_alone_what_runs_again(store: Store) -> None:
    await limit(store, "2")
    await store.add(4, channel="mail")
    server = await store.server()
    first, _ = await store.claim(server)
    await store.settle(server, ended(first, "failed", delay=0.0), part=[first.lease])
    await store.claim_one(server)
    await store.settle(server, ended(first, "failed", delay=0.0), part=[first.lease])
    assert await store.claim(server) == []


async def test_cancelled_tasks_take_no_room(store: Store) -> None:
    await limit(store, "2")
    tasks = await store.add(6, channel="mail")
    await store.tasks.cancel([task.id for task in tasks[:4]], "no")
    assert ids(await store.claim(await store.server())) == ids(tasks[4:])


async def test_a_full_channel_keeps_nothing_else_from_running(store: Store) -> None:
    await limit(store, "1")
    await store.add(500, channel="mail", priority=9)
    server = await store.server()
    await store.claim_one(server)
    plain = await store.add(3)
    assert ids(await store.claim(server)) == ids(plain)


async def test_priorities_and_the_order_of_arrival_hold_within_and_across_channels(store: Store) -> None:
    await limit(store, "3")
    first = await store.one(channel="mail")
    second = await store.one()
    third = await store.one(channel="mail")
    urgent = await store.one(channel="mail", priority=1)
    server = await store.server()
    assert ids(await store.claim(server, 3)) == ids([urgent, first, second])
    assert ids(await store.claim(server, 3)) == ids([third])


async def test_async_and_sync_tasks_share_the_cap(store: Store) -> None:
    await limit(store, "3")
    await store.add(3, channel="mail")
    await store.add(3, channel="mail", executor=Executor.SYNC)
    assert len(await store.claim(await store.server())) == 3


async def test_a_cap_per_server_holds_on_each(store: Store) -> None:
    await limit(store, "2/server")
    await store.add(10, channel="mail")
    one, other = await store.server("one"), await store.server("other")
    assert len(await store.claim(one)) == 2
    assert len(await store.claim(other)) == 2
    assert await store.claim(one) == []


async def test_many_claimers_that_settle_at_once_never_exceed_the_cap(store: Store) -> None:
    await limit(store, "5")
    await store.add(400, channel="mail")
    stores = [await store.another() for _ in range(6)]
    running = most = done = 0

    async def work(own: Store, server: ServerId) -> None:
        nonlocal running, most, done
        while done < 400:
            claimed = await own.claim(server, random.randint(1, 4))
            running += len(claimed)
            most = max(most, running)
            if claimed:
                await asyncio.sleep(0)
                running -= len(claimed)  # before the write: what the queue counts is never less
                done += len(claimed)
                await own.settle(server, *(ended(it) for it in claimed))

    await asyncio.gather(*[work(own, await store.server(f"s{no}")) for no, own in enumerate(stores)])
    assert done == 400
    assert 1 < most <= 5
    assert await store.count("token") == 0


async def test_two_claims_of_one_channel_take_turns(store: Store) -> None:
    await limit(store, "3")
    await store.add(10, channel="mail")
    server, other = await store.server(), await store.another()
    await other.begin()
    held = await other.claim(server, 2)
    waiting = await blocked(await store.another(), store, store.claim(server))
    await other.commit()
    assert len(held) + len(await waiting) == 3


# ---- changes while tasks run


async def test_what_runs_when_a_cap_is_set_counts(store: Store) -> None:
    tasks = await store.add(10, channel="mail")
    server = await store.server()
    running = await store.claim(server, 4)
    await limit(store, "5")
    assert ids(await store.claim(server)) == ids(tasks[4:5])
    await store.settle(server, *(ended(it) for it in running))
    assert ids(await store.claim(server)) == ids(tasks[5:9])


async def test_a_claim_that_waits_while_the_first_cap_is_set_keeps_to_it(store: Store) -> None:
    await store.add(3, channel="mail")
    server, other = await store.server(), await store.another()
    await other.begin()
    await limit(other, "1")
    claimed = await blocked(await store.another(), store, store.claim(server))
    await other.commit()
    assert (len(await claimed), await store.count("token")) == (1, 1)


async def test_a_settlement_under_way_when_a_cap_is_set_is_not_counted_for_ever(store: Store) -> None:
    await store.add(2, channel="mail")
    server, other = await store.server(), await store.another()
    first = (await store.claim(server, 1))[0]
    await other.begin()
    await other.settle(server, ended(first))
    setting = await blocked(await store.another(), store, limit(store, "1"))
    await other.commit()
    await setting
    assert await store.count("token") == 0
    assert len(await store.claim(server)) == 1


async def test_a_raised_cap_lets_more_in_and_none_lets_all(store: Store) -> None:
    await limit(store, "1")
    await store.add(10, channel="mail")
    server = await store.server()
    assert len(await store.claim(server)) == 1
    await limit(store, "4")
    assert len(await store.claim(server)) == 3
    await limit(store, "none")
    assert len(await store.claim(server)) == 6
    assert await store.count("token") == 0


async def test_a_lowered_cap_lets_nothing_in_until_enough_have_ended(store: Store) -> None:
    await limit(store, "4")
    await store.add(10, channel="mail")
    server = await store.server()
    claimed = await store.claim(server)
    await limit(store, "2")
    await store.settle(server, *(ended(it) for it in claimed[:2]), part=[claimed[0].lease])
    assert await store.claim(server) == []
    await store.settle(server, ended(claimed[2]), part=[claimed[0].lease])
    assert len(await store.claim(server)) == 1


@pytest.mark.parametrize(("text", "paused"), [("0", False), ("none", True), ("5", True)])
async def test_a_paused_channel_starts_nothing(store: Store, text: str, paused: bool) -> None:
    await limit(store, text, paused=paused)
    await store.add(3, channel="mail")
    server = await store.server()
    assert await store.claim(server) == []
    await limit(store, "5")
    assert len(await store.claim(server)) == 3


async def test_seeding_leaves_limits_that_are_there(store: Store) -> None:
    await limit(store, "4")
    await GateStore(store.session).seed([Gate("mail", cap=1), Gate("other", cap=2)])
    assert [(row.gate.channel, row.gate.cap) for row in await GateStore(store.session).look()] == [
        ("mail", 4),
        ("other", 2),
    ]


async def test_seeding_leaves_limits_that_somebody_sets_meanwhile(store: Store) -> None:
    operator, server = await store.another(), await store.another()
    await operator.begin()
    await limit(operator, "4")
    seeding = await blocked(store, server, GateStore(server.session).seed([Gate("mail", cap=1)]))
    await operator.commit()
    await seeding
    assert (await channel(store)).gate.cap == 4


@pytest.mark.parametrize("before", ["4", "0"])
async def test_seeding_leaves_a_channel_whose_limits_somebody_has_lifted(store: Store, before: str) -> None:
    gates = GateStore(store.session)
    await gates.seed([parse_limits("mail", before)])
    await limit(store, "none")
    await gates.seed([parse_limits("mail", before)])
    assert await gates.look() == []
    await limit(store, "6")
    await store.value("delete from queued_tasks.gate returning 1")
    await gates.seed([parse_limits("mail", before)])
    assert (await channel(store)).gate.limits == before


async def test_seeding_leaves_a_channel_whose_limits_somebody_lifts_meanwhile(store: Store) -> None:
    operator, server = await store.another(), await store.another()
    await operator.begin()
    await limit(operator, "none")
    seeding = await blocked(store, server, GateStore(server.session).seed([Gate("mail", cap=1)]))
    await operator.commit()
    await seeding
    assert await GateStore(store.session).look() == []


async def test_a_pause_and_a_limit_that_are_set_at_once_are_both_kept(store: Store) -> None:
    one, other = await store.another(), await store.another()
    await one.begin()
    await GateStore(one.session).change("mail", lambda gate: replace(gate, paused=True))
    change = GateStore(other.session).change("mail", lambda gate: replace(gate, cap=6))
    changing = await blocked(store, other, change)
    await one.commit()
    assert await changing == Gate("mail", cap=6, paused=True) == (await channel(store)).gate


async def test_a_seed_that_names_no_limits_leaves_the_channel_to_the_next_one(store: Store) -> None:
    gates = GateStore(store.session)
    await gates.seed([parse_limits("mail", "none")])
    await gates.seed([parse_limits("mail", "4")])
    assert (await channel(store)).gate.limits == "4"


async def test_a_channel_shows_what_runs_and_what_waits(store: Store) -> None:
    await limit(store, "2@100/min")
    await store.add(5, channel="mail")
    await store.claim(await store.server())
    row = await channel(store)
    assert (row.gate.limits, row.running, row.waiting) == ("2@100/min", 2, 3)


async def test_tokens_of_tasks_that_no_lease_holds_are_swept(store: Store) -> None:
    await limit(store, "1")
    await store.add(2, channel="mail")
    server = await store.server()
    await store.claim_one(server)
    await store.session.connection.execute("delete from queued_tasks.lease")
    assert await store.upkeep.sweep_tokens() == 1
    assert len(await store.claim(server)) == 1


async def test_one_that_runs_for_long_keeps_the_count_short(store: Store) -> None:
    await limit(store, "2")
    await store.add(4, channel="mail")
    server = await store.server()
    long, short = await store.claim(server)
    await store.settle(server, ended(short), part=[long.lease])
    await store.value("select setval('queued_tasks.token_seq', 50000)")
    await store.claim(server)
    low = await store.value("select low from queued_tasks.gate_state order by version desc limit 1")
    seqs = await store.rows("select seq from queued_tasks.token order by seq")
    assert min(seqs) > 50_000 > low
    assert await store.claim(server) == []


# ---- rates


async def test_a_rate_begins_with_a_full_bucket_and_says_when_it_goes_on(store: Store) -> None:
    await limit(store, "@5/h")
    await store.add(20, channel="mail")
    server = await store.server()
    first = await claim(store, server)
    assert len(first.tasks) == 5
    assert first.next_in == pytest.approx(720, abs=30)
    again = await claim(store, server)
    assert again.tasks == []
    assert again.next_in == pytest.approx(720, abs=30)


async def test_a_rate_lets_through_what_time_has_refilled(store: Store) -> None:
    await limit(store, "@6/h")
    await store.add(20, channel="mail")
    server = await store.server()
    assert len(await store.claim(server)) == 6
    await store.value("update queued_tasks.gate_state set at = at - interval '20 minutes 1 second' returning 1")
    assert len(await store.claim(server)) == 2


async def test_a_clock_that_is_set_back_holds_up_no_rate(store: Store) -> None:
    await limit(store, "@6/h")
    await store.add(20, channel="mail")
    server = await store.server()
    assert len(await store.claim(server)) == 6
    await store.value("update queued_tasks.gate_state set at = at + interval '1 day' returning 1")
    assert len(await store.claim(server)) == 6
    assert await store.claim(server) == []
    await store.value("update queued_tasks.gate_state set at = at - interval '20 minutes 1 second' returning 1")
    assert len(await store.claim(server)) == 2


async def test_the_ends_of_tasks_refill_no_rate(store: Store) -> None:
    await limit(store, "3@3/h")
    await store.add(6, channel="mail")
    assert len(await store.run(await store.server())) == 3
    assert await store.claim(await store.server()) == []


async def test_a_rate_and_a_cap_both_hold(store: Store) -> None:
    await limit(store, "2@3/h")
    await store.add(6, channel="mail")
    server = await store.server()
    assert len(await store.run(server)) == 2
    assert len(await store.run(server)) == 1
    assert await store.run(server) == []
