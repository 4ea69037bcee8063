"""Adding tasks: once each, all or none, in order, to the lane they belong to."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta

import asyncpg
import pytest

from queued_tasks.runtime.task import Executor
from tests.store import Store, blocked, ended, new_task


async def test_a_repeated_add_enqueues_nothing_twice(store: Store) -> None:
    tasks = [new_task() for _ in range(3)]
    assert await store.tasks.add(tasks) == {}
    more = new_task()
    assert await store.tasks.add([*tasks, more], repeat=True) == {task.id: task.id for task in tasks}
    tasks.append(more)
    assert [it.id for it in await store.claim(await store.server())] == [task.id for task in tasks]


async def test_a_repeated_add_without_the_hint_enqueues_nothing_twice_either(store: Store) -> None:
    tasks = [new_task() for _ in range(3)]
    await store.tasks.add(tasks)
    await store.tasks.add(tasks)
    assert await store.count("ready") == 3


async def test_a_repeated_add_does_not_run_a_task_again_that_ended(store: Store) -> None:
    task = await store.one()
    await store.run(await store.server())
    await store.tasks.add([task], repeat=True)
    assert await store.count("ready") == 0


async def test_a_repeated_add_does_not_bring_back_a_removed_task(store: Store) -> None:
    task = await store.one(auto_remove=True)
    await store.run(await store.server())
    await store.tasks.add([task], repeat=True)
    assert await store.state(task) is None


async def test_a_repeat_that_overtakes_the_first_call_waits_for_it(store: Store) -> None:
    first, second = await store.another(), await store.another()
    task = new_task()
    await first.tasks.lanes.ensure([task])
    await first.begin()
    await first.tasks.add([task])
    repeat = await blocked(store, second, second.tasks.add([task], repeat=True))
    await first.commit()
    await repeat
    assert await store.count("ready") == 1


async def test_a_batch_with_a_bad_row_adds_none_of_it(store: Store) -> None:
    with pytest.raises(asyncpg.CheckViolationError):
        await store.tasks.add([new_task(), new_task(function="")])
    assert await store.count("task") + await store.count("ready") == 0


async def test_tasks_are_claimed_in_the_order_in_which_they_were_added(store: Store) -> None:
    tasks = await store.add(500)
    await store.tasks.add(more := [new_task() for _ in range(500)])
    claimed = await store.claim(await store.server(), 1_000)
    assert [it.id for it in claimed] == [task.id for task in tasks + more]


async def test_a_lane_is_made_for_each_channel_priority_and_kind_of_worker(store: Store) -> None:
    await store.one(channel="mail")
    await store.one(channel="mail", priority=5)
    await store.one(channel="mail", executor=Executor.SYNC)
    await store.one(channel="mail", executor=Executor.THREAD)
    lanes = await store.rows("select channel, priority, sync, again from queued_tasks.lane order by id")
    assert lanes == [("mail", 0, False, False), ("mail", 5, False, False), ("mail", 0, True, False)]


async def test_a_process_that_finds_its_lanes_there_takes_no_numbers_for_them(store: Store) -> None:
    for _ in range(3):
        await (await store.another()).tasks.lanes.ensure([new_task(), new_task(channel="mail")])
    await store.one(channel="later")
    assert await store.rows("select id, channel from queued_tasks.lane order by id") == [
        (1, "default"),
        (2, "mail"),
        (3, "later"),
    ]


async def test_writers_that_meet_at_a_new_lane_make_it_once(store: Store) -> None:
    writers = [await store.another() for _ in range(8)]
    await asyncio.gather(*(writer.one(channel="new") for writer in writers))
    assert await store.count("lane") == 1
    assert len(await store.claim(await store.server())) == 8


async def test_a_task_for_later_stands_among_the_delayed(store: Store) -> None:
    later = await store.one(run_at=datetime.now(UTC) + timedelta(hours=1))
    assert await store.rows("select id, attempt from queued_tasks.delayed") == [(later.id, 1)]
    assert await store.count("ready") == 0


async def test_a_task_for_a_time_that_has_passed_may_be_claimed_at_once(store: Store) -> None:
    task = await store.one(run_at=datetime.now(UTC) - timedelta(hours=1))
    assert (await store.claim_one(await store.server())).id == task.id


async def test_every_field_reaches_the_claim(store: Store) -> None:
    task = await store.one(
        function="app.mail:send",
        executor=Executor.THREAD,
        args="[1]",
        kwargs='{"a": 2}',
        name="mail",
        timeout=7.5,
        max_retries=9,
        context='{"b": 3}',
        signature=b"\x00signed",
    )
    it = await store.claim_one(await store.server())
    assert (it.id, it.function, it.executor, it.args, it.kwargs) == (task.id, "app.mail:send", 2, "[1]", '{"a": 2}')
    assert (it.name, it.timeout, it.max_retries, it.context) == ("mail", 7.5, 9, '{"b": 3}')
    assert (it.signature, it.attempt, it.flagged, it.expired) == (b"\x00signed", 1, False, False)


async def test_values_that_only_some_tasks_of_a_batch_have_stay_with_them(store: Store) -> None:
    tasks = [new_task(), new_task(name="named", timeout=3.0), new_task(kwargs='{"a": 1}')]
    await store.tasks.add(tasks)
    claimed = await store.claim(await store.server())
    assert [(it.name, it.timeout, it.kwargs) for it in claimed] == [
        ("work", None, None),
        ("named", 3.0, None),
        ("work", None, '{"a": 1}'),
    ]


async def test_tasks_that_an_attempt_added_are_written_with_its_end(store: Store) -> None:
    await store.one()
    server = await store.server()
    it = await store.claim_one(server)
    added = [new_task(), new_task(channel="other")]
    end = ended(it)
    settlement = await store.settle(server, end, added=[(end, added)])
    assert settlement.lined == 2
    assert {again.id for again in await store.claim(server)} == {task.id for task in added}


async def test_each_of_a_batch_keeps_what_it_does_not_share(store: Store) -> None:
    tasks = [new_task(name=f"name {number % 7}", priority=number % 3) for number in range(30)]
    await store.tasks.add(tasks)
    found = await store.rows("select id, name, priority from queued_tasks.task order by id")
    assert found == [(task.id, task.name, task.priority) for task in tasks]
