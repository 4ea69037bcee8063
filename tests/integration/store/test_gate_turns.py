"""Whose turn it is in channels with a limit per key: how claims find the keys, whatever was claimed before."""

from __future__ import annotations

from queued_tasks.runtime.ids import new_id
from queued_tasks.runtime.store.lanes import Lane
from queued_tasks.runtime.task import LeaseId
from tests.limits import ids, limit
from tests.store import Store, ended, new_task


async def only_lane(store: Store) -> Lane:
    await store.tasks.lanes.refresh()
    (lane,) = store.tasks.lanes
    return lane


async def low_of_turns(store: Store, lane: int) -> int:
    turns = "select (turns ->> $1::text)::bigint from queued_tasks.gate_state order by version desc limit 1"
    return int(await store.value(turns, str(lane)))


def look_back(store: Store) -> None:
    """Let the next claim read the newcomers again, as a claimer does, for some that were late."""
    store.lows = dict.fromkeys(store.lows, -1)


def read_anew(store: Store) -> None:
    """Let the next claim be a full pass."""
    store.lows.clear()


async def test_every_key_has_its_turn_without_a_look_at_the_line(store: Store) -> None:
    await limit(store, "/key:1")
    server = await store.server()
    await store.one(channel="mail", key="first")
    assert len(await store.claim(server)) == 1
    tasks = [await store.one(channel="mail", key=f"k{no}") for no in range(40)]
    tasks += await store.add(1, channel="mail")
    tasks += [task for no in range(1_200) for task in await store.add(1, channel="mail", key=f"m{no}")]
    seen: list[object] = []
    while claimed := await store.claim(server, 300):
        seen += ids(claimed)
    assert sorted(seen, key=str) == sorted(ids(tasks), key=str)
    assert await store.count("turn") == await store.count("newcomer") == 0


async def test_what_is_tried_again_gives_its_key_another_turn(store: Store) -> None:
    await limit(store, "/key:1")
    server = await store.server()
    task = await store.one(channel="mail", key="a")
    for attempt in (1, 2, 3):
        (claimed,) = await store.claim(server)
        assert (claimed.id, claimed.attempt, await store.count("turn")) == (task.id, attempt, 0)
        await store.settle(server, ended(claimed, "failed", delay=0.0))


async def test_a_key_whose_tasks_were_all_cancelled_loses_its_turn(store: Store) -> None:
    await limit(store, "/key:1")
    server = await store.server()
    cancelled = await store.add(3, channel="mail", key="a")
    other = await store.one(channel="mail", key="b")
    await store.tasks.cancel([task.id for task in cancelled], "no")
    assert ids(await store.claim(server)) == [other.id]
    assert await store.claim(server) == []
    assert await store.count("turn") == 0


async def test_a_newcomer_that_is_committed_late_is_found_by_a_look_back(store: Store) -> None:
    await limit(store, "/key:1")
    server, other = await store.server(), await store.another()
    await other.tasks.lanes.ensure([new_task(channel="mail")])
    await other.begin()
    late = await other.one(channel="mail", key="a")
    await store.one(channel="mail", key="b")
    assert len(await store.claim(server)) == 1
    await other.commit()
    assert await store.claim(server) == []
    look_back(store)
    assert ids(await store.claim(server)) == [late.id]


async def test_a_task_that_is_committed_late_goes_ahead_of_younger_ones_of_its_key(store: Store) -> None:
    await limit(store, "/key:1")
    server, other = await store.server(), await store.another()
    await other.tasks.lanes.ensure([new_task(channel="mail")])
    await other.begin()
    late = await other.one(channel="mail", key="a")
    first, second = await store.add(2, channel="mail", key="a")
    claimed = await store.claim_one(server)
    assert claimed.id == first.id
    await store.settle(server, ended(claimed))
    await other.commit()
    look_back(store)
    claimed = await store.claim_one(server)
    assert claimed.id == late.id
    await store.settle(server, ended(claimed))
    assert ids(await store.claim(server)) == [second.id]


async def test_a_keyed_task_that_was_added_while_the_limit_changed_is_found_by_a_full_pass(store: Store) -> None:
    server, other = await store.server(), await store.another()
    await other.tasks.lanes.ensure([new_task(channel="mail")])
    await other.begin()
    late = await other.one(channel="mail", key="a")
    await limit(store, "/key:1")
    await store.one(channel="mail", key="b")
    assert len(await store.claim(server)) == 1
    await other.commit()
    look_back(store)
    assert await store.claim(server) == []
    read_anew(store)
    assert ids(await store.claim(server)) == [late.id]


async def test_a_full_pass_looks_at_so_many_keys_and_at_others_the_next_time(store: Store) -> None:
    await limit(store, "/key:1")
    server = await store.server()
    await store.add(1, channel="mail")
    lane = await only_lane(store)
    await store.rows(
        """
        insert into queued_tasks.bundle (lane, ids, attempt, key)
        select $1, array[gen_random_uuid()], 1, 'k' || n from generate_series(1, 25000) n
        """,
        lane.id,
    )
    found = 0
    for _ in range(100):
        await store.tasks.is_claimable(server, [(lane, 0, 0)], soon=False)
        before, found = found, await store.count("turn") + await store.count("newcomer")
        assert found - before <= 20_000
        if await store.count("turn") >= 25_000:
            break
    assert await store.count("turn") == 25_001
    assert await store.count("newcomer") == 0


async def test_a_limit_per_key_that_is_set_again_finds_what_came_meanwhile(store: Store) -> None:
    await limit(store, "/key:1")
    server = await store.server()
    first, _ = await store.add(2, channel="mail", key="a")
    assert ids(await store.claim(server)) == [first.id]
    waiting = await store.add(2, channel="mail", key="b")
    assert await store.count("turn") == await store.count("newcomer") == 1
    await limit(store, "0")
    assert await store.count("turn") == await store.count("newcomer") == 0
    waiting += await store.add(2, channel="mail", key="c")
    await limit(store, "/key:1")
    assert sorted(ids(await store.claim(server)), key=str) == sorted(ids(waiting[::2]), key=str)


async def test_a_claim_reads_a_line_from_its_start_when_its_limit_per_key_is_gone(store: Store) -> None:
    await limit(store, "/key:1")
    server = await store.server()
    tasks = await store.add(3, channel="mail", key="a")
    assert ids(await store.claim(server)) == ids(tasks[:1])
    await limit(store, "10")
    assert ids(await store.claim(server)) == ids(tasks[1:])


async def test_a_low_water_from_before_there_was_a_limit_per_key_says_nothing_of_the_keys(store: Store) -> None:
    server = await store.server()
    await store.add(300, channel="mail")
    low = (await store.claim(server, 200))[-1].seq
    await limit(store, "/key:1")
    task = await store.one(channel="mail", key="a")
    assert task.id in ids(await store.claim(server, 200, low=low))


async def test_a_key_is_found_behind_many_newcomers_of_one_that_may_not_start(store: Store) -> None:
    await limit(store, "/key:1")
    server = await store.server()
    await store.one(channel="mail", key="a")
    await store.claim_one(server)
    for _ in range(1_010):
        await store.one(channel="mail", key="a")
    task = await store.one(channel="mail", key="b")
    assert ids(await store.claim(server)) == [task.id]


async def test_keys_that_may_not_start_leave_the_others_short_ways(store: Store) -> None:
    await limit(store, "/key:1")
    server = await store.server()
    await store.add(2, channel="mail", key="slow")
    await store.claim_one(server)
    await store.value("select setval('queued_tasks.turn_seq', 50000)")
    await store.add(1, channel="mail", key="a")
    claimed = await store.claim_one(server)
    assert await store.value("select min(seq) from queued_tasks.turn") > 50_000
    await store.settle(server, ended(claimed))
    await store.add(1, channel="mail", key="b")
    await store.claim_one(server)
    assert await low_of_turns(store, (await only_lane(store)).id) > 50_000


async def test_keys_keep_their_turns_however_many_others_had_theirs_meanwhile(store: Store) -> None:
    await limit(store, "/key:2")
    server = await store.server()
    for key in "abcde":
        await store.add(9, channel="mail", key=key)
    assert len(await store.claim(server, 1)) == 1  # so one of a runs all the time
    seen = ""
    for no in range(1, 26):
        await store.value("select setval('queued_tasks.turn_seq', $1)", no * 50_000)
        (claimed,) = await store.claim(server, 1)
        seen += await store.value("select key from queued_tasks.task where id = $1", claimed.id)
        await store.settle(server, ended(claimed))
    assert seen == "bcdea" * 5


async def test_keys_in_a_lane_from_which_nobody_takes_leave_the_others_short_ways(store: Store) -> None:
    await limit(store, "/key:1")
    server = await store.server()
    await store.add(2, channel="mail", key="a")
    await store.settle(server, ended(await store.claim_one(server)))
    await store.value("select setval('queued_tasks.turn_seq', 50000)")
    urgent = await store.one(channel="mail", key="b", priority=5)
    (claimed,) = await store.claim(server, 1)
    assert claimed.id == urgent.id
    assert await low_of_turns(store, claimed.lane) > 50_000
    assert len(await store.claim(server)) == 1


async def test_a_key_has_its_turn_however_often_another_one_has_come(store: Store) -> None:
    await limit(store, "1/key:1")
    server = await store.server()
    await store.add(3, channel="mail", key="a")
    lane = (await only_lane(store)).id
    flood = "insert into queued_tasks.newcomer (lane, key, first) select $1, 'a', 64 from generate_series(1, 3500)"
    await store.rows(flood, lane)
    task = await store.one(channel="mail", key="b")
    await store.settle(server, ended(await store.claim_one(server)))
    assert ids(await store.claim(server)) == [task.id]


async def test_a_full_pass_comes_through_where_there_is_room_or_nothing_stands(store: Store) -> None:
    await limit(store, "1/key:1")
    server = await store.server()
    await store.add(2, channel="mail", key="a")
    lane = await only_lane(store)

    async def low() -> int | None:
        claim = await store.tasks.claim(server, LeaseId(new_id()), [(lane, 0, 0)], 10)
        await store.settle(server, *(ended(it) for it in claim.tasks[:done]))
        return claim.lows.get(lane.id)

    done = 0
    assert await low() is not None
    assert await low() is None, "the channel is full: it has seen nothing"
    await limit(store, "5/key:5")
    done = 1
    assert await low() is not None
    assert await low() is None, "somebody may still add tasks who knows of no limit"
    await store.value("update queued_tasks.gate set changed_at = now() - interval '61 seconds' returning 1")
    assert await low() is not None, "there is nothing left to be seen"


async def test_newcomers_of_a_limit_that_was_lifted_meanwhile_are_swept(store: Store) -> None:
    await limit(store, "/key:1")
    other = await store.another()
    await other.tasks.lanes.ensure([new_task(channel="mail")])
    await other.begin()
    await other.one(channel="mail", key="a")
    await limit(store, "none")
    await other.commit()
    await limit(store, "/key:1", "other")
    await store.one(channel="other", key="a")
    assert await store.count("newcomer") == 2
    await store.upkeep.sweep_tokens()
    assert await store.rows(
        "select l.channel from queued_tasks.newcomer n join queued_tasks.lane l on l.id = n.lane"
    ) == ["other"]
    assert len(await store.claim(await store.server())) == 2


async def test_a_low_water_of_a_plain_line_is_no_look_from_its_start(store: Store) -> None:
    server, other = await store.server(), await store.another()
    await other.tasks.lanes.ensure([new_task(channel="mail")])
    await other.begin()
    late = await other.one(channel="mail", key="a")
    await store.add(1, channel="mail")
    (claimed,) = await store.claim(server)
    await limit(store, "/key:1")
    await store.value("update queued_tasks.gate set changed_at = now() - interval '61 seconds' returning 1")
    await other.commit()
    assert await store.claim(server, low=claimed.seq) == []
    assert store.lows == {}
    assert ids(await store.claim(server)) == [late.id]


async def test_who_has_no_room_sees_whether_a_key_may_start(store: Store) -> None:
    await limit(store, "/key:1")
    server = await store.server()
    await store.add(2, channel="mail", key="a")
    claimed = await store.claim_one(server)
    lane = await only_lane(store)

    async def seen(low: int) -> list[bool]:
        return [await store.tasks.is_claimable(server, [(lane, 0, low)], soon=soon) for soon in (False, True)]

    low = store.lows[lane.id]
    assert low < 0
    assert await seen(low) == await seen(0) == [False, True]
    await store.one(channel="mail", key="b")
    assert await seen(low) == await seen(0) == [True, True]
    await store.claim_one(server)
    await store.settle(server, ended(claimed))
    await store.claim_one(server)
    assert await seen(low) == await seen(0) == [False, False]


async def test_the_lane_of_a_function_takes_its_turns_along(store: Store) -> None:
    await limit(store, "/key:1")
    server = await store.server()
    await store.add(2, channel="mail", key="a")
    await store.tasks.lanes.refresh()
    lane = (await only_lane(store)).id
    await store.value("update queued_tasks.lane set function = 'app:gone' where id = $1", lane)
    await store.claim_one(server)
    await store.value("delete from queued_tasks.bundle returning 1")
    await store.value("select queued_tasks.prune_functions(100)")
    assert await store.count("lane") == await store.count("turn") == 0
