"""Unique keys: one task that is not over holds a key; who comes second is told who was first."""

from __future__ import annotations

import asyncio
import math
from typing import Any

import pytest

from queued_tasks.runtime.task import NewTask
from tests.store import Store, blocked, ended, new_task


async def test_the_second_task_with_a_key_loses_to_the_first(store: Store) -> None:
    first, second = new_task(unique_key="k"), new_task(unique_key="k")
    assert await store.tasks.add([first]) == {}
    assert await store.tasks.add([second]) == {second.id: first.id}
    assert await store.states([first, second]) == ["enqueued", None]


async def test_in_one_batch_the_first_in_order_wins(store: Store) -> None:
    tasks = [new_task(unique_key=key) for key in ("b", "a", "b", None, None, "b")]
    losers = await store.tasks.add(tasks)
    assert losers == {tasks[2].id: tasks[0].id, tasks[5].id: tasks[0].id}
    assert await store.count("ready") == 4


@pytest.mark.parametrize("outcome", ["done", "failed", "cancelled"])
async def test_the_end_of_the_task_frees_its_key(store: Store, outcome: str) -> None:
    await store.one(unique_key="k")
    await store.run(await store.server(), outcome)
    assert await store.tasks.add([new_task(unique_key="k")]) == {}


async def test_a_retry_keeps_the_key(store: Store) -> None:
    first = await store.one(unique_key="k")
    await store.run(await store.server(), "failed", delay=60.0)
    second = new_task(unique_key="k")
    assert await store.tasks.add([second]) == {second.id: first.id}


async def test_a_stopped_task_keeps_its_key(store: Store) -> None:
    first = await store.one(unique_key="k")
    await store.run(await store.server(), "stopped", delay=math.inf)
    second = new_task(unique_key="k")
    assert await store.tasks.add([second]) == {second.id: first.id}


async def test_a_cancelled_task_that_never_started_frees_its_key(store: Store) -> None:
    first = await store.one(unique_key="k")
    await store.tasks.cancel([first.id], "not wanted")
    assert await store.tasks.add([new_task(unique_key="k")]) == {}


async def test_a_child_that_ended_with_its_parent_frees_its_key(store: Store) -> None:
    parent = new_task()
    await store.tasks.add([parent, new_task(unique_key="k", parents=(parent.id,))])
    await store.run(await store.server(), "failed")
    assert await store.tasks.add([new_task(unique_key="k")]) == {}


async def test_a_child_that_is_added_to_a_failed_parent_frees_its_key(store: Store) -> None:
    parent = await store.one()
    await store.run(await store.server(), "failed")
    await store.one(unique_key="k", parents=(parent.id,))
    assert await store.count("unique_task") == 0


async def test_of_two_writers_at_once_the_second_loses_to_the_first(store: Store) -> None:
    one, late, first, second = await _held_up(store)
    await one.commit()
    assert await late == {second.id: first.id}


async def test_a_writer_wins_when_the_first_is_rolled_back(store: Store) -> None:
    one, late, first, second = await _held_up(store)
    await one.session.connection.execute("rollback")
    assert await late == {}
    assert await store.states([first, second]) == [None, "enqueued"]


async def test_a_writer_wins_when_the_holder_ends_meanwhile(store: Store) -> None:
    await store.one(unique_key="k")
    settler, adder = await store.another(), await store.another()
    server = await store.server()
    it = await store.claim_one(server)
    await settler.begin()
    await settler.settle(server, ended(it))
    second = new_task(unique_key="k")
    await adder.tasks.lanes.refresh()
    late = await blocked(store, adder, adder.tasks.add([second]))
    await settler.commit()
    assert await late == {}
    assert await store.rows("select id from queued_tasks.unique_task") == [second.id]


async def test_batches_that_want_the_same_keys_do_not_wait_for_each_other(store: Store) -> None:
    one, two = await store.another(), await store.another()
    mine = [new_task(unique_key=key) for key in ("a", "b", "c")]
    theirs = [new_task(unique_key=key) for key in ("c", "b", "a")]
    await store.tasks.lanes.ensure(mine)
    await one.tasks.lanes.refresh()
    await two.tasks.lanes.refresh()
    await one.begin()
    await one.tasks.add(mine[:1])
    late = await blocked(store, two, two.tasks.add(theirs))
    await one.tasks.add(mine[1:])
    await one.commit()
    assert await late == {theirs[0].id: mine[2].id, theirs[1].id: mine[1].id, theirs[2].id: mine[0].id}


async def test_the_children_of_a_loser_wait_for_the_winner(store: Store) -> None:
    winner = await store.one(unique_key="k")
    loser, other = new_task(unique_key="k"), new_task()
    child = new_task(parents=(other.id, loser.id))
    await store.tasks.add([loser, other, child])
    task = await store.reads.task(child.id)
    assert task is not None
    assert task.parents == [other.id, winner.id]
    server = await store.server()
    await store.run(server)
    assert [it.id for it in await store.claim(server)] == [child.id]


async def test_the_child_of_a_loser_is_let_go_when_the_winner_has_ended(store: Store) -> None:
    await store.one(unique_key="k")
    loser = new_task(unique_key="k")
    child = new_task(parents=(loser.id,))
    await store.tasks.add([loser, child])
    server = await store.server()
    await store.run(server)
    assert (await store.claim_one(server)).id == child.id


async def test_a_repeated_write_of_an_ended_task_takes_its_key_no_more(store: Store) -> None:
    task = await store.one(unique_key="k")
    await store.run(await store.server())
    await store.tasks.add([task])
    assert await store.count("unique_task") == 0


async def test_a_repeated_write_of_a_winner_is_its_own(store: Store) -> None:
    task = await store.one(unique_key="k")
    assert await store.tasks.add([task], repeat=True) == {task.id: task.id}


async def _held_up(store: Store) -> tuple[Store, asyncio.Future[Any], NewTask, NewTask]:
    """A writer whose transaction is open, the answer to come to one that wants its key, and the task of each."""
    one, two = await store.another(), await store.another()
    first, second = new_task(unique_key="k"), new_task(unique_key="k")
    await store.tasks.lanes.ensure([first])
    await one.tasks.lanes.refresh()
    await two.tasks.lanes.refresh()
    await one.begin()
    await one.tasks.add([first])
    late = await blocked(store, two, two.tasks.add([second]))
    return one, late, first, second


async def test_a_holder_that_sql_has_cancelled_gives_way_before_a_server_comes(store: Store) -> None:
    holder = await store.one(unique_key="k")
    await store.value("select queued_tasks.cancel($1)", holder.id)
    task = new_task(unique_key="k")
    assert await store.tasks.add([task]) == {}
    assert await store.states([holder, task]) == ["cancelled", "enqueued"]


async def test_a_holder_that_runs_keeps_its_key_though_sql_has_cancelled_it(store: Store) -> None:
    holder = await store.one(unique_key="k")
    await store.claim_one(await store.server())
    await store.value("select queued_tasks.cancel($1)", holder.id)
    task = new_task(unique_key="k")
    assert await store.tasks.add([task]) == {task.id: holder.id}
    posted = await store.value("select queued_tasks.enqueue('app:work', unique_key => 'k')")
    assert posted == holder.id


async def test_sql_replaces_a_task_in_one_transaction(store: Store) -> None:
    holder = await store.one(unique_key="k")
    await store.begin()
    await store.value("select queued_tasks.cancel($1)", holder.id)
    posted = await store.value("select queued_tasks.enqueue('app:work', unique_key => 'k')")
    await store.commit()
    await store.upkeep.promote_inbox(10)
    assert await store.state(holder) == "cancelled"
    assert [it.id for it in await store.claim(await store.server())] == [posted]
