"""Retention: what is over goes after its time, in batches, with all that belongs to it; clearing removes what waits."""

from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest

from queued_tasks.runtime.ids import new_id
from queued_tasks.runtime.task import ContextWrite, LogWrite, NewTask
from tests.store import Store, blocked, ended, new_task

DAY = 86_400.0
OLD = datetime.now(UTC) - timedelta(days=30)


def _old_id() -> UUID:
    """An id as a task of a month ago has it."""
    return UUID(int=(int(OLD.timestamp() * 1000) << 80) | (new_id().int & (1 << 80) - 1))


async def _old(store: Store, count: int = 1, **fields: object) -> list[NewTask]:
    """Tasks that ended a month ago."""
    tasks = [new_task(id=_old_id(), **fields) for _ in range(count)]
    await store.tasks.add(tasks)
    await store.run(await store.server())
    await store.rows("update queued_tasks.result set ended_at = $1", OLD)
    return tasks


async def test_what_ended_long_ago_is_removed(store: Store) -> None:
    (task,) = await _old(store)
    young = await store.one()
    await store.run(await store.server())
    assert await store.upkeep.prune(DAY, 100) == 1
    assert await store.states([task, young]) == [None, "done"]


async def test_what_was_created_long_ago_and_ended_just_now_stays(store: Store) -> None:
    task = new_task(id=_old_id())
    await store.tasks.add([task])
    await store.run(await store.server())
    assert await store.upkeep.prune(DAY, 100) == 0


async def test_what_has_not_ended_stays(store: Store) -> None:
    tasks = [new_task(id=_old_id()) for _ in range(2)]
    await store.tasks.add(tasks)
    server = await store.server()
    await store.settle(server, ended((await store.claim(server, 1))[0], "stopped", delay=math.inf))
    assert await store.upkeep.prune(DAY, 100) == 0
    assert sorted(map(str, await store.states(tasks))) == ["enqueued", "stopped"]


async def test_a_batch_is_bounded(store: Store) -> None:
    await _old(store, 5)
    assert [await store.upkeep.prune(DAY, 2) for _ in range(4)] == [2, 2, 1, 0]


async def test_nothing_of_a_removed_task_stays_but_its_tombstone(store: Store) -> None:
    task = new_task(id=_old_id())
    await store.tasks.add([task])
    server = await store.server()
    await store.settle(server, ended(await store.claim_one(server), "failed", delay=0.0))
    it = await store.claim_one(server)
    log = LogWrite(it, 0.0, 20, "app", "hello", None)
    await store.settle(server, ended(it), contexts=[ContextWrite(it, 1, "{}")], logs=[log])
    await store.rows("update queued_tasks.result set ended_at = $1", OLD)
    await store.upkeep.prune(DAY, 100)
    tables = ("task", "result", "attempt", "context", "log")
    assert [await store.count(table) for table in tables] == [0] * len(tables)
    assert await store.rows("select id from queued_tasks.tombstone") == [task.id]


async def test_a_parent_stays_for_as_long_as_a_child_needs_it(store: Store) -> None:
    (parent,) = await _old(store)
    await store.one(parents=(parent.id,))
    assert await store.upkeep.prune(DAY, 100) == 0
    await store.run(await store.server())
    assert await store.upkeep.prune(DAY, 100) == 1


async def test_a_tombstone_is_removed_after_an_hour(store: Store) -> None:
    await store.rows(
        "insert into queued_tasks.tombstone values ($1, now() - interval '2 hours'), ($2, now())", new_id(), new_id()
    )
    await store.upkeep.prune_traces(DAY)
    assert await store.count("tombstone") == 1


async def test_a_server_that_ended_long_ago_is_forgotten(store: Store) -> None:
    gone, _running = await store.server(), await store.server()
    await store.servers.leave(gone, "stopped")
    await store.rows("update queued_tasks.server set ended_at = $2 where id = $1", gone, OLD)
    await store.upkeep.prune_traces(DAY)
    assert (await store.count("server"), await store.count("heartbeat")) == (1, 1)


async def test_a_wish_that_came_too_late_is_forgotten(store: Store) -> None:
    task = await store.one()
    server = await store.server()
    it = await store.claim_one(server)
    await store.tasks.cancel([task.id], "not wanted")
    await store.settle(server, ended(it))
    await store.upkeep.prune_traces(DAY)
    assert await store.count("interrupt") == 0


async def _clear(store: Store, name: str | None = None, channel: str | None = None) -> int:
    return int(await store.session.fetch_value("clear", name, channel))


async def test_clearing_removes_what_has_not_started_and_nothing_else(store: Store) -> None:
    done, doing = await store.add(2)
    server = await store.server()
    await store.settle(server, ended((await store.claim(server, 1))[0]))
    await store.claim(server)
    ready, later = await store.one(), await store.one(run_at=datetime.now(UTC) + timedelta(hours=1))
    waiting = await store.one(parents=(doing.id,))
    assert await _clear(store) == 3
    assert await store.states([done, doing, ready, later, waiting]) == ["done", "doing", None, None, None]
    assert [await store.count(table) for table in ("ready", "delayed", "dependency")] == [0, 0, 0]


@pytest.mark.parametrize(("name", "channel"), [("send", None), (None, "mail"), ("send", "mail")])
async def test_clearing_can_be_limited_to_a_name_and_a_channel(
    store: Store, name: str | None, channel: str | None
) -> None:
    mail = await store.one(function="app:send", channel="mail")
    other = await store.one()
    assert await _clear(store, name, channel) == 1
    assert await store.states([mail, other]) == [None, "enqueued"]


async def test_descendants_that_could_never_run_are_cleared_too(store: Store) -> None:
    parent = new_task(channel="mail")
    child = new_task(parents=(parent.id,))
    grandchild = new_task(parents=(child.id,))
    await store.tasks.add([parent, child, grandchild])
    assert await _clear(store, channel="mail") == 3
    assert await store.count("task") == 0


async def test_a_child_that_runs_in_any_case_is_let_go_by_clearing_its_parent(store: Store) -> None:
    parent = new_task(channel="mail")
    child = new_task(parents=(parent.id,), on_parent_failure="run")
    await store.tasks.add([parent, child])
    assert await _clear(store, channel="mail") == 1
    assert await store.state(child) == "enqueued"


async def test_clearing_frees_unique_keys(store: Store) -> None:
    await store.one(unique_key="k")
    await _clear(store)
    assert await store.tasks.add([new_task(unique_key="k")]) == {}


async def test_a_long_line_is_cleared_in_batches(store: Store) -> None:
    await store.add(2_500)
    assert [await _clear(store) for _ in range(4)] == [1_000, 1_000, 500, 0]


async def test_cancelled_tasks_at_the_head_of_a_line_do_not_end_the_clearing(store: Store) -> None:
    off = await store.add(1_200)
    await store.tasks.cancel([task.id for task in off], "not wanted")
    await store.one()
    assert await _clear(store) == 1


async def test_a_child_that_is_let_go_while_it_is_cleared_keeps_no_place_among_the_delayed(store: Store) -> None:
    parent = await store.one()
    await store.one(parents=(parent.id,), run_at=datetime.now(UTC) + timedelta(hours=1))
    server = await store.server()
    it = await store.claim_one(server)
    other = await store.another()
    await store.begin()
    await store.settle(server, ended(it))
    cleared = await blocked(store, other, _clear(other))
    await store.commit()
    assert await cleared == 1
    assert [await store.count(table) for table in ("task", "delayed")] == [1, 0]


async def test_a_task_that_is_claimed_while_it_would_be_cleared_runs_on(store: Store) -> None:
    task = await store.one()
    server = await store.server()
    other = await store.another()
    await store.begin()
    await store.claim_one(server)
    cleared = await blocked(store, other, _clear(other))
    await store.commit()
    assert (await cleared, await store.state(task)) == (0, "doing")


async def test_a_child_that_ends_while_it_would_be_cleared_keeps_its_end(store: Store) -> None:
    parent = await store.one()
    child = await store.one(parents=(parent.id,))
    server = await store.server()
    it = await store.claim_one(server)
    other = await store.another()
    await store.begin()
    await store.settle(server, ended(it, "failed"))
    cleared = await blocked(store, other, _clear(other))
    await store.commit()
    assert (await cleared, await store.state(child)) == (0, "failed")
