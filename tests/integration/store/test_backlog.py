"""The backlog: what there is to do by channel, right to the task, and cheap however long the lines are."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from queued_tasks.runtime.gates import parse_limits
from queued_tasks.runtime.ids import new_id
from queued_tasks.runtime.store.gates import GateStore
from queued_tasks.runtime.store.servers import Beat
from queued_tasks.runtime.task import Executor, Stance
from tests.store import Store


async def backlog(store: Store, most: int = 10_000) -> dict[tuple[str, bool], tuple[int, int, int]]:
    """What is in line, may start and runs, by the channel and whether it is for sync workers."""
    rows = await store.rows("select * from queued_tasks.backlog($1)", most)
    return {(channel, sync): tuple(counts) for channel, sync, *counts in rows}


async def limit(store: Store, text: str, *, paused: bool = False) -> None:
    gate = parse_limits("mail", text)
    await GateStore(store.session).change("mail", lambda _: replace(gate, paused=paused))


async def park(store: Store) -> None:
    """A server that takes tasks claims all of them, and knows the function of none."""
    server = await store.server()
    beat = Beat(lock_key=None, state="running", workers=1, slots=1, busy=0, details={})
    await store.servers.beat(server, beat)
    stance = Stance("app:work", "unknown", "not found")
    await store.tasks.park(server, await store.claim(server), [stance], full=[])


async def test_an_empty_queue_has_none(store: Store) -> None:
    assert await backlog(store) == {}


async def test_it_tells_channels_kinds_and_what_runs_apart(store: Store) -> None:
    await store.add(5, channel="mail")
    await store.claim(await store.server(), 2)
    await store.add(3, channel="mail", executor=Executor.SYNC, priority=5)
    await store.add(4)
    assert await backlog(store) == {
        ("default", False): (4, 4, 0),
        ("mail", False): (3, 3, 2),
        ("mail", True): (3, 3, 0),
    }


async def test_lines_of_all_priorities_add_up(store: Store) -> None:
    for priority in (-1, 0, 7):
        await store.add(2, priority=priority)
    assert await backlog(store) == {("default", False): (6, 6, 0)}


async def test_what_is_due_counts_before_it_is_in_line(store: Store) -> None:
    now = datetime.now(UTC)
    due, _, _ = [await store.one(run_at=now + timedelta(days=days)) for days in (1, 1, 2)]
    await store.session.connection.execute("update queued_tasks.delayed set run_at = now() where id = $1", due.id)
    assert await backlog(store) == {("default", False): (1, 1, 0)}


async def test_what_was_posted_by_sql_counts_before_it_is_in_line(store: Store) -> None:
    await store.rows("select queued_tasks.enqueue('app:work', channel => 'sql') from generate_series(1, 3)")
    assert await backlog(store) == {("sql", False): (3, 3, 0)}


async def test_a_task_that_waits_for_its_parent_does_not_count(store: Store) -> None:
    parent = await store.one()
    await store.one(parents=(parent.id,))
    assert await backlog(store) == {("default", False): (1, 1, 0)}


async def test_a_cancelled_task_does_not_count_while_it_has_a_place_in_line(store: Store) -> None:
    one, _ = await store.add(2)
    await store.session.fetch("cancel_tasks", [one.id], "no longer wanted")
    assert await store.count("ready") == 2
    assert await backlog(store) == {("default", False): (1, 1, 0)}


async def test_what_has_ended_does_not_count(store: Store) -> None:
    await store.add(3)
    await store.run(await store.server())
    assert await backlog(store) == {}


@pytest.mark.parametrize(("limits", "may_start"), [("5", 3), ("1", 0), ("0", 0), ("5/server", 4), ("5@1/min", 3)])
async def test_a_limit_of_the_channel_lets_as_many_start_as_have_room(
    store: Store, limits: str, may_start: int
) -> None:
    await store.add(6, channel="mail")
    await store.claim(await store.server(), 2)
    await limit(store, limits)
    assert await backlog(store) == {("mail", False): (4, may_start, 2)}


async def test_a_limit_is_one_for_both_kinds_of_workers(store: Store) -> None:
    await store.add(2, channel="mail")
    await store.add(9, channel="mail", executor=Executor.SYNC)
    await limit(store, "5")
    assert await backlog(store) == {("mail", False): (2, 2, 0), ("mail", True): (9, 3, 0)}


async def test_of_a_paused_channel_nothing_may_start(store: Store) -> None:
    await store.add(6, channel="mail")
    await limit(store, "5", paused=True)
    assert await backlog(store) == {("mail", False): (6, 0, 0)}


async def test_no_more_of_a_line_are_counted_than_asked_for(store: Store) -> None:
    await store.add(30)
    await store.add(30, channel="mail")
    assert await backlog(store, 20) == {("default", False): (20, 20, 0), ("mail", False): (20, 20, 0)}


async def test_a_place_in_line_of_a_removed_task_does_not_count(store: Store) -> None:
    task = await store.one()
    await store.session.connection.execute(
        "insert into queued_tasks.bundle (lane, ids, attempt) "
        "select lane, array[$1::uuid], 1 from queued_tasks.ready where id = $2",
        *(new_id(), task.id),
    )
    assert await backlog(store) == {("default", False): (1, 1, 0)}


async def test_what_all_servers_decline_is_not_counted(store: Store) -> None:
    await store.add(2)
    await park(store)
    assert await backlog(store) == {}


async def test_what_another_server_may_know_is_counted(store: Store) -> None:
    await store.add(2)
    await park(store)
    beat = Beat(lock_key=None, state="running", workers=1, slots=1, busy=0, details={})
    await store.servers.beat(await store.server(), beat)
    assert await backlog(store) == {("default", False): (2, 2, 0)}
