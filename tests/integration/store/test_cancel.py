"""Cancelling, stopping, resuming: what has not started never starts, what runs is asked to end."""

from __future__ import annotations

import asyncio
import math
from datetime import UTC, datetime, timedelta

from queued_tasks.runtime.ids import new_id
from queued_tasks.runtime.store.servers import Beat
from tests.store import Store, blocked, ended, new_task

BEAT = Beat(lock_key=None, state="running", workers=1, slots=1, busy=1, details={})


async def test_a_cancelled_task_never_starts(store: Store) -> None:
    task = await store.one()
    interruption = await store.tasks.cancel([task.id], "not wanted")
    assert (interruption.ended, interruption.asked) == ((task.id,), ())
    assert await store.claim(await store.server()) == []


async def test_a_cancelled_task_says_why(store: Store) -> None:
    task = await store.one()
    await store.tasks.cancel([task.id], "not wanted")
    read = await store.reads.task(task.id)
    assert read is not None
    assert (read.state, read.exception_message, read.attempt) == ("cancelled", "not wanted", 0)


async def test_a_running_task_is_left_to_its_server(store: Store) -> None:
    task = await store.one()
    server = await store.server()
    await store.claim(server)
    interruption = await store.tasks.cancel([task.id], "not wanted")
    assert (interruption.ended, interruption.asked) == ((), (server,))
    assert await store.state(task) == "doing"


async def test_a_server_hears_on_its_beat_what_it_is_asked(store: Store) -> None:
    await store.add(2)
    server, other = await store.server(), await store.server()
    first, second = await store.claim(server)
    await store.tasks.cancel([first.id], "not wanted")
    await store.tasks.stop([second.id])
    news = await store.servers.beat(server, BEAT)
    assert (news.cancels, news.stops) == ((first.id,), (second.id,))
    news = await store.servers.beat(other, BEAT)
    assert (news.cancels, news.stops) == ((), ())


async def test_tasks_of_several_servers_are_asked_for_at_each(store: Store) -> None:
    tasks = await store.add(4)
    servers = [await store.server() for _ in range(2)]
    for server in servers:
        await store.claim(server, 1)
    interruption = await store.tasks.cancel([task.id for task in tasks], "not wanted")
    assert set(interruption.asked) == set(servers)
    assert set(interruption.ended) == {task.id for task in tasks[2:]}


async def test_a_task_that_has_ended_or_never_was_is_passed_over(store: Store) -> None:
    task = await store.one()
    await store.run(await store.server())
    interruption = await store.tasks.cancel([task.id, new_id()], "not wanted")
    assert (interruption.ended, interruption.asked) == ((), ())
    assert await store.state(task) == "done"


async def test_a_second_cancel_changes_nothing(store: Store) -> None:
    task = await store.one()
    await store.tasks.cancel([task.id], "first")
    assert (await store.tasks.cancel([task.id], "second")).ended == ()


async def test_a_cancel_waits_for_a_claim_under_way_and_asks_its_server(store: Store) -> None:
    task = await store.one()
    server = await store.server()
    claimer, canceller = await store.another(), await store.another()
    await claimer.begin()
    await claimer.claim(server)
    cancel = await blocked(store, canceller, canceller.tasks.cancel([task.id], "not wanted"))
    await claimer.commit()
    assert (await cancel).asked == (server,)


async def test_a_claim_waits_for_a_cancel_under_way_and_leaves_the_task(store: Store) -> None:
    task = await store.one()
    server = await store.server()
    claimer, canceller = await store.another(), await store.another()
    await canceller.begin()
    await canceller.tasks.cancel([task.id], "not wanted")
    claim = await blocked(store, claimer, claimer.claim(server))
    await canceller.commit()
    assert await claim == []


async def test_a_cancel_waits_for_a_retry_under_way_and_ends_the_task(store: Store) -> None:
    task = await store.one()
    server = await store.server()
    it = await store.claim_one(server)
    settler, canceller = await store.another(), await store.another()
    await settler.begin()
    await settler.settle(server, ended(it, "failed", delay=0.0))
    cancel = await blocked(store, canceller, canceller.tasks.cancel([task.id], "not wanted"))
    await settler.commit()
    assert (await cancel).ended == (task.id,)
    assert await store.count("interrupt") == 0


async def test_a_settlement_waits_for_a_cancel_under_way_and_grants_it(store: Store) -> None:
    task = await store.one()
    server = await store.server()
    it = await store.claim_one(server)
    settler, canceller = await store.another(), await store.another()
    await canceller.begin()
    await canceller.tasks.cancel([task.id], "not wanted")
    settled = await blocked(store, settler, settler.settle(server, ended(it, "failed", delay=0.0)))
    await canceller.commit()
    assert (await settled).lined == 0
    assert await store.state(task) == "cancelled"


async def test_a_parent_that_ends_while_its_child_is_cancelled_leaves_it_cancelled(store: Store) -> None:
    parent = new_task()
    child = new_task(parents=(parent.id,))
    await store.tasks.add([parent, child])
    server = await store.server()
    it = await store.claim_one(server)
    settler, canceller = await store.another(), await store.another()
    await canceller.begin()
    await canceller.tasks.cancel([child.id], "not wanted")
    settled = await blocked(store, settler, settler.settle(server, ended(it)))
    await canceller.commit()
    assert (await settled).lined == 0
    assert await store.state(child) == "cancelled"


async def test_a_child_that_is_cancelled_while_its_parent_ends_never_starts(store: Store) -> None:
    parent = new_task()
    child = new_task(parents=(parent.id,))
    await store.tasks.add([parent, child])
    server = await store.server()
    it = await store.claim_one(server)
    settler, canceller = await store.another(), await store.another()
    await settler.begin()
    await settler.settle(server, ended(it))
    cancel = await blocked(store, canceller, canceller.tasks.cancel([child.id], "not wanted"))
    await settler.commit()
    assert (await cancel).ended == (child.id,)
    assert await store.claim(server) == []


async def test_whole_families_can_be_cancelled_while_they_fail(store: Store) -> None:
    server = await store.server()
    settler, canceller = await store.another(), await store.another()
    for _ in range(20):
        parent = new_task()
        child = new_task(parents=(parent.id,))
        grandchildren = [new_task(parents=(child.id,)) for _ in range(3)]
        await store.tasks.add([parent, child, *grandchildren])
        it = await store.claim_one(server)
        await asyncio.gather(
            settler.settle(server, ended(it, "failed")),
            canceller.tasks.cancel([task.id for task in reversed([child, *grandchildren])], "not wanted"),
        )
        assert {await store.state(task) for task in grandchildren} <= {"failed", "cancelled"}


async def test_a_task_for_later_loses_its_place(store: Store) -> None:
    task = await store.one(run_at=datetime.now(UTC) + timedelta(days=1))
    await store.tasks.cancel([task.id], "not wanted")
    assert (await store.state(task), await store.count("delayed")) == ("cancelled", 0)


async def test_a_task_that_waits_for_its_next_attempt_loses_its_place(store: Store) -> None:
    task = await store.one()
    await store.run(await store.server(), "failed", delay=3600.0)
    await store.tasks.cancel([task.id], "not wanted")
    read = await store.reads.task(task.id)
    assert read is not None
    assert (read.state, read.attempt, await store.count("delayed")) == ("cancelled", 1, 0)


async def test_a_stopped_task_can_be_cancelled(store: Store) -> None:
    task = await store.one()
    await store.run(await store.server(), "stopped", delay=math.inf)
    await store.tasks.cancel([task.id], "not wanted")
    assert (await store.state(task), await store.count("stopped")) == ("cancelled", 0)
    assert await store.tasks.resume([task.id]) == ()


async def test_whoever_waits_for_a_cancelled_task_is_told(store: Store) -> None:
    parent = new_task()
    child = new_task(parents=(parent.id,))
    await store.tasks.add([parent, child])
    await store.session.fetch("subscribe", [parent.id, child.id], "topic")
    told = (await store.tasks.cancel([parent.id], "not wanted")).told
    assert {*told["topic"]} == {str(parent.id), str(child.id)}


async def test_to_stop_what_does_not_run_asks_nobody(store: Store) -> None:
    task = await store.one()
    assert await store.tasks.stop([task.id]) == ()
    assert await store.state(task) == "enqueued"


async def test_to_stop_what_runs_asks_its_server(store: Store) -> None:
    task = await store.one()
    server = await store.server()
    await store.claim(server)
    assert await store.tasks.stop([task.id]) == (server,)


async def test_a_wish_to_stop_does_not_weaken_one_to_cancel(store: Store) -> None:
    task = await store.one()
    await store.claim(await store.server())
    await store.tasks.cancel([task.id], "not wanted")
    await store.tasks.stop([task.id])
    assert await store.rows("select kind from queued_tasks.interrupt") == ["cancel"]


async def test_a_wish_to_cancel_replaces_one_to_stop(store: Store) -> None:
    task = await store.one()
    await store.claim(await store.server())
    await store.tasks.stop([task.id])
    await store.tasks.cancel([task.id], "not wanted")
    assert await store.rows("select kind from queued_tasks.interrupt") == ["cancel"]


async def test_a_resumed_task_runs_its_next_attempt_with_its_context(store: Store) -> None:
    task = await store.one()
    server = await store.server()
    await store.run(server, "stopped", delay=math.inf)
    assert await store.tasks.resume([task.id]) == (task.id,)
    it = await store.claim_one(server)
    assert (it.id, it.attempt, await store.count("stopped")) == (task.id, 2, 0)


async def test_what_is_not_stopped_is_not_resumed(store: Store) -> None:
    task = await store.one()
    assert await store.tasks.resume([task.id, new_id()]) == ()
    assert await store.count("ready") == 1


async def test_the_children_of_a_stopped_task_keep_waiting(store: Store) -> None:
    parent = new_task()
    child = new_task(parents=(parent.id,))
    await store.tasks.add([parent, child])
    await store.run(await store.server(), "stopped", delay=math.inf)
    assert await store.state(child) == "waiting"
