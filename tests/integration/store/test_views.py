"""Reading: the state of a task wherever it stands, pages, counts."""

from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest

from queued_tasks.runtime.ids import new_id
from queued_tasks.runtime.task import NewTask, TaskState
from tests.store import Store, ended, new_task

LATER = timedelta(hours=1)


async def _one_of_each(store: Store) -> dict[str, list[UUID]]:
    """Tasks in every state, by state; the newest last."""
    server = await store.server()
    await store.add(7, channel="first")
    done, failed, cancelled, stopped, retried, asked, doing = await store.claim(server)
    await store.tasks.cancel([asked.id], "not wanted")
    await store.settle(
        server,
        ended(done),
        ended(failed, "failed"),
        ended(cancelled, "cancelled"),
        ended(stopped, "stopped", delay=math.inf),
        ended(retried, "failed", delay=60.0),
        part=[done.lease],
    )
    later = await store.one(run_at=datetime.now(UTC) + LATER)
    waiting = await store.one(parents=(doing.id,))
    bad = await store.one(parents=(failed.id,))
    ready, off = await store.add(2)
    await store.tasks.cancel([off.id], "not wanted")
    return {
        "enqueued": [retried.id, later.id, ready.id],
        "waiting": [waiting.id],
        "doing": [asked.id, doing.id],
        "done": [done.id],
        "failed": [failed.id, bad.id],
        "cancelled": [cancelled.id, off.id],
        "stopped": [stopped.id],
    }


async def test_a_task_is_in_the_state_in_which_it_stands(store: Store) -> None:
    tasks = await _one_of_each(store)
    states = {state: {await store.state(id) for id in ids} for state, ids in tasks.items()}
    assert states == {state: {state} for state in tasks}


async def test_counts_agree_with_the_states(store: Store) -> None:
    tasks = await _one_of_each(store)
    assert await store.reads.counts() == {state: len(ids) for state, ids in tasks.items()}


async def test_what_is_pending_are_the_enqueued(store: Store) -> None:
    tasks = await _one_of_each(store)
    assert await store.reads.pending() == len(tasks["enqueued"])


async def test_a_page_of_a_state_has_the_tasks_in_that_state_newest_first(store: Store) -> None:
    tasks = await _one_of_each(store)
    pages = {state: [task.id for task in await _page(store, state=TaskState(state))] for state in tasks}
    assert pages == {state: ids[::-1] for state, ids in tasks.items()}


async def _page(store: Store, **wanted: Any) -> Any:
    return await store.reads.tasks(
        **{"state": None, "name": None, "channel": None, "before": None, "limit": 50, **wanted}
    )


async def test_pages_follow_each_other_without_gap_or_overlap(store: Store) -> None:
    tasks = await store.add(25)
    ids: list[UUID] = []
    while page := await _page(store, before=ids[-1] if ids else None, limit=10):
        ids += [task.id for task in page]
    assert ids == [task.id for task in reversed(tasks)]


@pytest.mark.parametrize("state", ["enqueued", "done", "failed", "waiting", "stopped", "doing"])
async def test_pages_of_a_state_follow_each_other_too(store: Store, state: str) -> None:
    tasks = await _many(store, state)
    ids: list[UUID] = []
    while page := await _page(store, state=TaskState(state), before=ids[-1] if ids else None, limit=2):
        ids += [task.id for task in page]
    assert ids == [task.id for task in reversed(tasks)]


async def _many(store: Store, state: str) -> list[NewTask]:
    """Five tasks in this state."""
    server = await store.server()
    if state == "waiting":
        parent = await store.one()
        return await store.add(5, parents=(parent.id,))
    tasks = await store.add(5)
    if state == "doing":
        await store.claim(server)
    elif state != "enqueued":
        await store.run(server, state, delay=math.inf if state == "stopped" else None)
    return tasks


@pytest.mark.parametrize("state", [None, "enqueued", "done", "failed"])
async def test_a_page_can_be_limited_to_a_name_and_a_channel(store: Store, state: str | None) -> None:
    wanted = await store.one(name="nightly", channel="reports")
    await store.one(name="nightly")
    await store.one(channel="reports")
    if state in ("done", "failed"):
        await store.run(await store.server(), state)
    found = await _page(store, state=state and TaskState(state), name="nightly", channel="reports")
    assert [task.id for task in found] == [wanted.id]


async def test_a_task_that_nobody_knows_is_none(store: Store) -> None:
    assert await store.reads.task(new_id()) is None


async def test_a_task_reads_as_it_was_written(store: Store) -> None:
    run_at = datetime.now(UTC) + LATER
    parent = await store.one()
    written = new_task(
        args='[1, "a"]',
        kwargs='{"b": 2}',
        name="nightly",
        channel="reports",
        priority=3,
        max_retries=5,
        timeout=30.0,
        run_at=run_at,
        unique_key="k",
        auto_remove=True,
        parents=(parent.id,),
        context='{"c": 3}',
    )
    await store.tasks.add([written])
    task = await store.reads.task(written.id)
    assert task is not None
    assert (task.name, task.function, task.args, task.kwargs) == ("nightly", "app:work", [1, "a"], {"b": 2})
    assert (task.channel, task.priority, task.max_retries, task.timeout) == ("reports", 3, 5, timedelta(seconds=30))
    assert (task.run_at, task.unique_key, task.auto_remove, task.parents) == (run_at, "k", True, [parent.id])
    assert (task.context, task.attempt, task.started_at, task.ended_at) == ({"c": 3}, 0, None, None)


async def test_a_running_retry_is_doing_its_second_attempt(store: Store) -> None:
    task = await store.one()
    server = await store.server("s1")
    await store.run(server, "failed", delay=0.0)
    await store.claim(server)
    read = await store.reads.task(task.id)
    assert read is not None
    assert (read.state, read.attempt, read.failures, read.server) == ("doing", 2, 1, "s1")
    assert read.exception_name == "ValueError"


async def test_ends_tell_apart_what_ended_what_stopped_and_what_is_unknown(store: Store) -> None:
    tasks = await _one_of_each(store)
    unknown = new_id()
    asked = [tasks["done"][0], tasks["stopped"][0], tasks["waiting"][0], unknown]
    ends = await store.reads.ends(asked)
    found = [(ends[id]["known"], ends[id]["state"], ends[id]["stopped"]) for id in asked]
    assert found == [(True, "done", False), (True, None, True), (True, None, False), (False, None, False)]


async def test_servers_are_those_that_run_and_those_that_left_of_late(store: Store) -> None:
    running, left = await store.server("running"), await store.server("left")
    await store.servers.leave(left, "stopped")
    servers = {row["id"]: (row["present"], row["end_reason"]) for row in await store.reads.servers()}
    assert servers == {running: (True, None), left: (False, "stopped")}
