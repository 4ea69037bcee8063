"""Posted tasks: they hold up nobody before their commit, and get their places once after it."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import asyncpg
import pytest

from queued_tasks.runtime.posting import document_of
from queued_tasks.runtime.store.servers import Beat
from queued_tasks.runtime.task import NewTask, TaskState
from tests.store import Store, blocked, ended, new_task


async def post(store: Store, *tasks: NewTask) -> Any:
    """Add tasks as a transaction of the user's does; winners by losers."""
    answer = await store.session.fetch_value("post_tasks", document_of(tasks))
    return json.loads(answer or "{}")


async def promote(store: Store) -> tuple[int, int]:
    return await store.upkeep.promote_inbox(100)


async def test_a_posted_task_is_enqueued_before_it_has_a_place(store: Store) -> None:
    await post(store, task := new_task())
    assert await store.state(task) == "enqueued"
    assert await store.reads.pending() == 1
    assert (await store.reads.counts())["enqueued"] == 1


async def test_a_posted_task_is_among_the_enqueued_ones_that_are_listed(store: Store) -> None:
    await post(store, parent := new_task(), new_task(parents=(parent.id,)))
    page: dict[str, Any] = {"name": None, "channel": None, "before": None, "limit": 10}
    assert [task.id for task in await store.reads.tasks(state=TaskState.ENQUEUED, **page)] == [parent.id]


async def test_the_next_beat_of_a_server_that_was_not_told_finds_it(store: Store) -> None:
    server, beat = await store.server(), Beat(lock_key=None, state="running", workers=1, slots=1, busy=1, details={})
    assert not (await store.servers.beat(server, beat)).overdue
    await post(store, new_task())
    assert (await store.servers.beat(server, beat)).overdue
    await promote(store)
    assert not (await store.servers.beat(server, beat)).overdue


async def test_the_next_beat_finds_what_is_due(store: Store) -> None:
    server, beat = await store.server(), Beat(lock_key=None, state="running", workers=1, slots=1, busy=1, details={})
    await store.one(run_at=datetime.now(UTC) + timedelta(hours=1))
    assert not (await store.servers.beat(server, beat)).overdue
    await store.rows("update queued_tasks.delayed set run_at = now()")
    assert (await store.servers.beat(server, beat)).overdue


async def test_promotion_gives_places_in_the_order_of_posting(store: Store) -> None:
    tasks = [new_task() for _ in range(5)]
    for task in reversed(tasks):
        await post(store, task)
    assert await promote(store) == (5, 5)
    claimed = await store.claim(await store.server())
    assert [it.id for it in claimed] == [task.id for task in reversed(tasks)]


async def test_what_is_not_committed_is_left_where_it_is(store: Store) -> None:
    other = await store.another()
    await other.begin()
    await post(other, late := new_task())
    await post(store, early := new_task())
    assert await promote(store) == (1, 1)
    await other.commit()
    assert await promote(store) == (1, 1)
    assert [it.id for it in await store.claim(await store.server())] == [early.id, late.id]


async def test_two_that_promote_at_once_share_what_there_is(store: Store) -> None:
    await store.one()  # makes the lane
    await post(store, *(new_task() for _ in range(10)))
    other = await store.another()
    await other.begin()
    assert (await other.upkeep.promote_inbox(4))[0] == 4
    assert (await promote(store))[0] == 6
    await other.commit()
    assert await store.count("ready") == 11


async def test_a_promotion_that_is_broken_off_is_done_again(store: Store) -> None:
    await post(store, task := new_task())
    other = await store.another()
    await other.begin()
    await promote(other)
    await other.session.connection.execute("rollback")
    assert await promote(store) == (1, 1)
    assert await promote(store) == (0, 0)
    assert [it.id for it in await store.claim(await store.server())] == [task.id]


async def test_a_delayed_task_goes_to_the_delayed_ones(store: Store) -> None:
    await post(store, new_task(run_at=datetime.now(UTC) + timedelta(hours=1)))
    assert await promote(store) == (1, 0)
    assert await store.count("delayed") == 1


async def test_a_task_that_was_cancelled_before_gets_no_place(store: Store) -> None:
    await post(store, task := new_task())
    assert (await store.tasks.cancel([task.id], "no")).ended == (task.id,)
    assert await promote(store) == (1, 0)
    assert await store.count("ready") == 0


async def test_a_posted_graph_waits_and_runs_in_its_order(store: Store) -> None:
    await post(store, parent := new_task(), child := new_task(parents=(parent.id,)))
    await promote(store)
    assert await store.states([parent, child]) == ["enqueued", "waiting"]
    server = await store.server()
    await store.run(server)
    assert [it.id for it in await store.claim(server)] == [child.id]


@pytest.mark.parametrize(("outcome", "state"), [("done", "enqueued"), ("failed", "failed")])
async def test_a_parent_that_has_ended_before_the_commit_is_seen(store: Store, outcome: str, state: str) -> None:
    parent = await store.one()
    other = await store.another()
    await other.begin()
    await post(other, child := new_task(parents=(parent.id,)))
    await store.run(await store.server(), outcome)
    await other.commit()
    await promote(store)
    assert await store.state(child) == state


@pytest.mark.parametrize(("outcome", "state"), [("done", "enqueued"), ("failed", "failed")])
async def test_a_parent_that_ends_between_commit_and_promotion_lets_go_once(
    store: Store, outcome: str, state: str
) -> None:
    parent = await store.one()
    await post(store, child := new_task(parents=(parent.id,)))
    await store.run(await store.server(), outcome)
    assert await store.state(child) == state
    await promote(store)
    assert await store.count("ready") == (1 if outcome == "done" else 0)


@pytest.mark.parametrize(("outcome", "state"), [("done", "enqueued"), ("failed", "failed")])
async def test_a_promotion_waits_for_the_end_of_a_parent_that_is_under_way(
    store: Store, outcome: str, state: str
) -> None:
    parent, settling, promoting = await store.one(), await store.another(), await store.another()
    server = await store.server()
    claimed = await store.claim_one(server)
    await settling.begin()
    await settling.settle(server, ended(claimed, outcome))
    await post(store, child := new_task(parents=(parent.id,)))
    promotion = await blocked(store, promoting, promote(promoting))
    await settling.commit()
    await promotion
    assert await store.state(child) == state
    assert await store.count("ready") == (1 if outcome == "done" else 0)


async def test_a_parent_that_ends_waits_for_a_promotion_that_is_under_way(store: Store) -> None:
    parent, promoting, settling = await store.one(), await store.another(), await store.another()
    server = await store.server()
    claimed = await store.claim_one(server)
    await post(store, child := new_task(parents=(parent.id,)))
    await promoting.begin()
    await promote(promoting)
    settlement = await blocked(store, settling, settling.settle(server, ended(claimed)))
    await promoting.commit()
    await settlement
    assert [it.id for it in await store.claim(server)] == [child.id]


async def test_an_open_transaction_with_a_task_keeps_no_enqueuer_and_no_claim_waiting(store: Store) -> None:
    other = await store.another()
    await other.begin()
    await post(other, new_task(unique_key="k"))
    mine = await store.one(unique_key="k")
    assert [it.id for it in await store.claim(await store.server())] == [mine.id]


async def test_of_two_with_the_same_key_in_open_transactions_the_first_to_get_a_place_runs(store: Store) -> None:
    one, two = await store.another(), await store.another()
    for session in (one, two):
        await session.begin()
    await post(one, first := new_task(unique_key="k"))
    await post(two, second := new_task(unique_key="k"))
    for session in (two, one):
        await session.commit()
    await promote(store)
    assert await store.states([first, second]) == ["enqueued", "cancelled"]


async def test_a_second_one_with_the_key_of_a_posted_task_is_that_task(store: Store) -> None:
    await post(store, first := new_task(unique_key="k"))
    second = new_task(unique_key="k")
    child = new_task(parents=(second.id,))
    assert await post(store, second, child) == {str(second.id): str(first.id)}
    await promote(store)
    assert await store.value("select parent from queued_tasks.dependency where child = $1", child.id) == first.id


async def test_posting_again_what_is_there_or_was_changes_nothing(store: Store) -> None:
    await post(store, task := new_task(auto_remove=True))
    await post(store, task)
    assert await promote(store) == (1, 1)
    await store.run(await store.server())
    await post(store, task)
    assert await store.count("inbox") == 0


async def listening(store: Store, topic: str) -> list[str]:
    heard: list[str] = []
    await store.session.connection.add_listener(topic, lambda *told: heard.append(told[-1]))
    return heard


async def member(store: Store, *, slots: int, busy: int) -> None:
    server = await store.server()
    await store.value(
        "update queued_tasks.heartbeat set state = 'running', slots = $2, busy = $3, details = $4 where server = $1",
        server,
        slots,
        busy,
        '{"topic": "wake"}',
    )


@pytest.mark.parametrize(("busy", "told"), [(1, ["delayed"]), (2, [])])
async def test_servers_are_told_at_the_commit_while_one_of_them_has_room(
    store: Store, busy: int, told: list[str]
) -> None:
    await member(store, slots=2, busy=busy)
    heard, other = await listening(store, "wake"), await store.another()
    await other.begin()
    await post(other, new_task(), new_task())
    await store.value("select 1")
    assert heard == []
    await other.commit()
    await store.value("select 1")
    assert heard == told


# ---- plain SQL


async def enqueue(store: Store, arguments: str) -> UUID:
    id: UUID = await store.value(f"select queued_tasks.enqueue({arguments})")
    return id


async def test_sql_adds_a_task_with_all_its_options(store: Store) -> None:
    id = await enqueue(
        store,
        "'app:f', args => '[1, \"ä\"]', kwargs => '{\"to\": null}', channel => 'mail', priority => -3,"
        " run_at => 'tomorrow', unique_key => 'k', max_retries => 0",
    )
    task = await store.reads.task(id)
    assert task is not None
    assert (task.function, task.args, task.kwargs) == ("app:f", [1, "ä"], {"to": None})
    assert (task.channel, task.priority, task.unique_key, task.max_retries) == ("mail", -3, "k", 0)
    assert await promote(store) == (1, 0)


async def test_the_ids_of_sql_are_uuids_of_version_seven_in_order(store: Store) -> None:
    ids = [await enqueue(store, "'app:f'") for _ in range(20)]
    assert {id.version for id in ids} == {7}
    assert sorted(ids) == ids


async def test_sql_gives_the_task_that_has_the_key(store: Store) -> None:
    first = await enqueue(store, "'app:f', unique_key => 'k'")
    assert await enqueue(store, "'app:f', unique_key => 'k'") == first


@pytest.mark.parametrize(
    ("arguments", "what", "hint"),
    [
        ("'send'", "function is 'send'", "module:name"),
        ("null", "function is NULL", "module:name"),
        ("'a:f', '{}'", "args is '{}'", "JSON array"),
        ("'a:f', kwargs => '[]'", "kwargs is '\\[\\]'", "JSON object"),
        ("'a:f', channel => ''", "channel is ''", "1 to 100"),
        ("'a:f', priority => 40000", "priority is '40000'", "-32768 to 32767"),
        ("'a:f', unique_key => ''", "unique_key is ''", "1 to 500"),
        ("'a:f', max_retries => -1", "max_retries is '-1'", "0 to 32767"),
        ("'a:f', jsonb_build_array(repeat('x', 2000000))", "more than 1 MiB", "its key"),
    ],
)
async def test_sql_says_what_is_wrong_and_what_to_do(store: Store, arguments: str, what: str, hint: str) -> None:
    with pytest.raises(asyncpg.InvalidParameterValueError, match=what) as refused:
        await enqueue(store, arguments)
    assert hint in str(refused.value.hint)


async def test_sql_functions_do_not_care_for_the_search_path_of_the_caller(store: Store) -> None:
    await store.value("create schema trap")
    await store.value("create function trap.jsonb_typeof(jsonb) returns text language sql as $$ select 'trapped' $$")
    await store.value("set search_path = trap, pg_catalog")
    id = await enqueue(store, "'app:f'")
    assert await store.value("select queued_tasks.cancel($1)", id)


async def cancel(store: Store, id: UUID) -> bool:
    return bool(await store.value("select queued_tasks.cancel($1)", id))


@pytest.mark.parametrize("servers", [0, 1])
async def test_sql_leaves_the_cancelling_to_servers_and_holds_back_no_claims(store: Store, servers: int) -> None:
    for _ in range(servers):
        await store.server()
    first, second, third = await store.add(3)
    other = await store.another()
    await other.begin()
    assert await cancel(other, second.id)
    assert [it.id for it in await store.claim(await store.server(), 1)] == [first.id]
    assert (await store.tasks.cancel([third.id], "no")).ended == (third.id,)
    await other.commit()
    await promote(store)
    assert await store.state(second) == "cancelled"


async def test_sql_cancels_no_task_that_has_ended(store: Store) -> None:
    task = await store.one()
    assert await cancel(store, task.id)
    await promote(store)
    assert not await cancel(store, task.id)


async def test_a_wish_to_cancel_is_rolled_back(store: Store) -> None:
    task, other = await store.one(), await store.another()
    await other.begin()
    await cancel(other, task.id)
    await other.session.connection.execute("rollback")
    await promote(store)
    assert await store.state(task) == "enqueued"


async def test_the_server_of_a_running_task_is_told_of_the_wish(store: Store) -> None:
    server = await store.server()
    task = await store.one()
    await store.claim(server)
    heard = await listening(store, f"queued_tasks_{server.hex}")
    assert await cancel(store, task.id)
    await promote(store)
    await store.value("select 1")
    assert heard == ["wish"]
    assert await store.value("select kind from queued_tasks.interrupt where id = $1", task.id) == "cancel"


async def test_sql_does_not_cancel_what_never_was(store: Store) -> None:
    with pytest.raises(asyncpg.NoDataFoundError, match="there is no task"):
        await cancel(store, new_task().id)


async def test_a_posted_child_of_a_cancelled_parent_ends_when_it_gets_its_place(store: Store) -> None:
    cancelled, done, open = await store.add(3)
    await store.tasks.cancel([cancelled.id], "no")
    child = new_task(parents=(cancelled.id, done.id, open.id))
    await post(store, child)
    server = await store.server()
    (it,) = await store.claim(server, 1)
    await store.settle(server, ended(it))
    assert (it.id, await store.state(child)) == (done.id, "waiting")
    await store.upkeep.promote_inbox(9)
    assert await store.state(child) == "cancelled"
