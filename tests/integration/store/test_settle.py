"""Settling: what each outcome leaves behind, what a repeated or a belated call does."""

from __future__ import annotations

import math
from datetime import timedelta

import pytest

from queued_tasks.runtime.ids import new_id
from queued_tasks.runtime.task import ContextWrite, LogWrite
from tests.store import Store, ended, new_task
from tests.waiting import wait_until


async def test_done_keeps_the_result(store: Store) -> None:
    await store.one()
    server = await store.server("s1")
    it = await store.claim_one(server)
    await store.settle(server, ended(it, result='{"a": 1}'))
    task = await store.reads.task(it.id)
    assert task is not None
    assert (task.state, task.result, task.attempt, task.failures, task.server) == ("done", {"a": 1}, 1, 0, "s1")
    assert task.execution_time == timedelta(seconds=0.01)


async def test_failed_keeps_the_exception(store: Store) -> None:
    await store.one()
    server = await store.server()
    it = await store.claim_one(server)
    await store.settle(server, ended(it, "failed", exception_traceback="line 1"))
    task = await store.reads.task(it.id)
    assert task is not None
    assert (task.state, task.failures) == ("failed", 1)
    assert (task.exception_name, task.exception_message, task.exception_traceback) == ("ValueError", "no", "line 1")


async def test_cancelled_ends_the_task(store: Store) -> None:
    task = await store.one()
    await store.run(await store.server(), "cancelled")
    assert await store.state(task) == "cancelled"


async def test_a_done_task_shows_no_exception_of_an_earlier_attempt(store: Store) -> None:
    task = await store.one()
    server = await store.server()
    await store.run(server, "failed", delay=0.0)
    await store.run(server)
    read = await store.reads.task(task.id)
    assert read is not None
    assert (read.failures, read.exception_name) == (1, None)


async def test_a_retry_at_once_stands_in_line_with_the_next_attempt(store: Store) -> None:
    task = await store.one()
    server = await store.server()
    it = await store.claim_one(server)
    settlement = await store.settle(server, ended(it, "retry", delay=0.0))
    assert settlement.lined == 1
    again = await store.claim_one(server)
    assert (again.id, again.attempt) == (task.id, 2)


async def test_a_retry_after_a_delay_stands_among_the_delayed(store: Store) -> None:
    task = await store.one()
    server = await store.server()
    settlement = await store.settle(server, ended(await store.claim_one(server), "failed", delay=60.0))
    assert settlement.lined == 0
    assert await store.rows("select id, attempt from queued_tasks.delayed") == [(task.id, 2)]
    assert await store.claim(server) == []


async def test_the_time_of_a_retry_is_the_one_that_readers_see(store: Store) -> None:
    task = await store.one()
    server = await store.server()
    await store.run(server, "failed", delay=60.0)
    read = await store.reads.task(task.id)
    assert read is not None
    assert read.run_at == await store.value("select run_at from queued_tasks.delayed")


async def test_a_retry_that_is_promoted_has_the_next_attempt(store: Store) -> None:
    await store.one()
    server = await store.server()
    await store.run(server, "failed", delay=0.001)

    async def promoted() -> bool:
        return (await store.upkeep.promote(10))[0] == 1

    await wait_until(promoted)
    assert (await store.claim_one(server)).attempt == 2


async def test_stopped_waits_until_somebody_resumes_it(store: Store) -> None:
    task = await store.one()
    server = await store.server()
    settlement = await store.settle(server, ended(await store.claim_one(server), "stopped", delay=math.inf))
    assert (await store.state(task), settlement.lined) == ("stopped", 0)
    assert await store.claim(server) == []


async def test_a_full_lease_is_gone_and_a_part_one_stays(store: Store) -> None:
    await store.add(2)
    server = await store.server()
    first, second = await store.claim(server)
    await store.settle(server, ended(first), part=[first.lease])
    assert await store.count("lease") == 1
    await store.settle(server, ended(second))
    assert await store.count("lease") == 0


async def test_one_settlement_ends_attempts_of_several_leases(store: Store) -> None:
    await store.add(6)
    server = await store.server()
    claimed = [it for _ in range(3) for it in await store.claim(server, 2)]
    settlement = await store.settle(server, *(ended(it) for it in claimed[:5]), part=[claimed[5].lease])
    assert not settlement.lost
    assert await store.count("result") == 5
    assert await store.rows("select id from queued_tasks.running") == [claimed[5].id]


@pytest.mark.parametrize("outcomes", [["failed"] * 3, ["done", "failed", "cancelled"]])
@pytest.mark.parametrize("told", ["once", "again", "without one lease"])
async def test_each_attempt_of_a_batch_gets_its_own_outcome_and_number(
    store: Store, outcomes: list[str], told: str
) -> None:
    again = await store.one()
    server = await store.server()
    await store.run(server, "failed", delay=0.0)
    tasks = [again, *await store.add(2)]
    claimed = {it.id: it for it in await store.claim(server)}
    settled = [ended(claimed[task.id], outcome) for task, outcome in zip(tasks, outcomes, strict=True)]
    if told == "again":
        await store.settle(server, settled[1], part=[settled[1].lease])
    full = [settled[0].lease, *([new_id()] if told == "without one lease" else [])]
    settlement = await store.settle(server, *settled, full=full)
    assert (settlement.lost, await store.count("lease")) == (frozenset(), 0)
    found = await store.rows("select (id, state::text, attempt, server)::text from queued_tasks.result order by id")
    numbers = [2, 1, 1]
    rows = zip([task.id for task in tasks], outcomes, numbers, strict=True)
    assert sorted(found) == sorted(f"({id},{outcome},{number},{server})" for id, outcome, number in rows)


@pytest.mark.parametrize(
    ("outcome", "delay"),
    [("done", None), ("failed", None), ("failed", 60.0), ("interrupted", 0.0), ("stopped", math.inf)],
)
@pytest.mark.parametrize("partly", [False, True])
async def test_a_repeated_settlement_changes_nothing(
    store: Store, outcome: str, delay: float | None, partly: bool
) -> None:
    await store.one()
    server = await store.server()
    it = await store.claim_one(server)
    part = [it.lease] if partly else []
    await store.settle(server, ended(it, outcome, delay=delay), part=part)
    before = await _rows(store)
    settlement = await store.settle(server, ended(it, outcome, delay=delay), part=part)
    assert not settlement.lost
    assert await _rows(store) == before


async def _rows(store: Store) -> list[int]:
    return [await store.count(table) for table in ("ready", "delayed", "attempt", "result", "stopped", "lease")]


async def test_a_repeated_settlement_of_a_task_that_was_removed_is_not_lost(store: Store) -> None:
    await store.one(auto_remove=True)
    server = await store.server()
    (it,) = await store.run(server)
    assert not (await store.settle(server, ended(it))).lost


async def test_what_has_ended_already_keeps_nothing_else_in_the_batch_from_being_recorded(store: Store) -> None:
    tasks = await store.add(3)
    server = await store.server()
    held = sorted(await store.claim(server), key=lambda it: it.id)
    await store.settle(server, ended(held[1], result="1"), part=[held[1].lease])
    settlement = await store.settle(server, *(ended(it, result="2") for it in held))
    assert not settlement.lost
    kept = "select array(select result::text from queued_tasks.result r where r.id = any ($1) order by r.id)"
    assert await store.value(kept, sorted(task.id for task in tasks)) == ["2", "1", "2"]


async def test_an_end_that_is_told_twice_in_one_call_is_recorded_once(store: Store) -> None:
    await store.one()
    server = await store.server()
    it = await store.claim_one(server)
    settlement = await store.settle(server, ended(it), ended(it))
    assert not settlement.lost
    assert await store.count("result") == 1


async def test_a_settlement_without_its_lease_is_lost(store: Store) -> None:
    task = await store.one()
    server = await store.server()
    it = await store.claim_one(server)
    settlement = await store.settle(server, ended(it, lease=new_id()))
    assert settlement.lost == {task.id}
    assert await store.state(task) == "doing"


async def test_the_lease_of_another_server_is_lost(store: Store) -> None:
    task = await store.one()
    it = await store.claim_one(await store.server())
    assert (await store.settle(await store.server(), ended(it))).lost == {task.id}
    assert await store.count("lease") == 1


@pytest.mark.parametrize("delay", [None, 0.0, 60.0])
async def test_a_batch_records_what_is_held_and_names_what_is_lost(store: Store, delay: float | None) -> None:
    await store.add(2)
    server = await store.server()
    held, lost = await store.claim(server, 1) + await store.claim(server, 1)
    outcome = "done" if delay is None else "failed"
    settled = [ended(held, outcome, delay=delay), ended(lost, outcome, delay=delay, lease=new_id())]
    settlement = await store.settle(server, *settled)
    assert settlement.lost == {lost.id}
    assert (await store.count("result") + await store.count("attempt"), await store.state(lost)) == (1, "doing")


async def test_a_lease_without_an_ended_attempt_does_no_harm(store: Store) -> None:
    await store.one()
    server = await store.server()
    it = await store.claim_one(server)
    settlement = await store.settle(server, ended(it), full=[it.lease, new_id()], part=[new_id()])
    assert not settlement.lost
    assert await store.state(it) == "done"


async def test_a_settlement_of_nothing_closes_a_lease(store: Store) -> None:
    await store.one()
    server = await store.server()
    it = await store.claim_one(server)
    await store.settle(server, full=[it.lease])
    assert await store.count("lease") == 0


async def test_an_outcome_after_a_rescue_is_lost_with_all_that_came_with_it(store: Store) -> None:
    task = await store.one()
    server = await store.server()
    it = await store.claim_one(server)
    await store.rescue(server)
    end = ended(it)
    settlement = await store.settle(
        server,
        end,
        contexts=[ContextWrite(it, 1, "{}")],
        logs=[LogWrite(it, 0.0, 20, "app", "hello", None)],
        added=[(end, [new_task()])],
    )
    assert settlement.lost == {task.id}
    assert [await store.count(table) for table in ("context", "log", "task", "result")] == [0, 0, 1, 0]


async def test_contexts_logs_and_added_tasks_are_written_with_the_end(store: Store) -> None:
    await store.one()
    server = await store.server()
    it = await store.claim_one(server)
    end = ended(it)
    await store.settle(
        server,
        end,
        contexts=[ContextWrite(it, 1, '{"at": 1}')],
        logs=[LogWrite(it, 0.0, 20, "app", "hello", None)],
        added=[(end, [new_task()])],
    )
    task = await store.reads.task(it.id)
    assert task is not None
    assert task.context == {"at": 1}
    assert [line.message for line in await store.reads.logs(it.id, after=None, limit=9)] == ["hello"]
    assert await store.count("ready") == 1


async def test_only_the_tasks_that_a_lost_attempt_added_are_left_out(store: Store) -> None:
    await store.add(2)
    server = await store.server()
    held, lost = await store.claim(server, 1) + await store.claim(server, 1)
    wanted, unwanted = new_task(), new_task()
    ends = ended(held), ended(lost, lease=new_id())
    await store.settle(server, *ends, added=[(ends[0], [wanted]), (ends[1], [unwanted])])
    assert (await store.state(wanted), await store.state(unwanted)) == ("enqueued", None)


@pytest.mark.parametrize("partly", [False, True])
async def test_a_repeated_settlement_writes_no_log_line_and_no_task_twice(store: Store, partly: bool) -> None:
    await store.add(2)
    server = await store.server()
    it, _ = await store.claim(server)
    end = ended(it)
    logs, added = [LogWrite(it, 0.0, 20, "app", "hello", None)], [(end, [new_task()])]
    for _ in range(2):
        await store.settle(server, end, part=[it.lease] if partly else [], logs=logs, added=added)
    assert (await store.count("log"), await store.count("ready")) == (1, 1)


@pytest.mark.parametrize("outcome", ["failed", "interrupted"])
async def test_a_wish_to_cancel_is_granted_when_the_attempt_ends_otherwise(store: Store, outcome: str) -> None:
    task = await store.one()
    server = await store.server()
    it = await store.claim_one(server)
    await store.tasks.cancel([task.id], "not wanted")
    await store.settle(server, ended(it, outcome, delay=0.0))
    assert (await store.state(task), await store.count("interrupt")) == ("cancelled", 0)
    assert await store.claim(server) == []


async def test_a_wish_to_stop_is_granted_when_the_attempt_is_to_be_retried(store: Store) -> None:
    task = await store.one()
    server = await store.server()
    it = await store.claim_one(server)
    await store.tasks.stop([task.id])
    await store.settle(server, ended(it, "failed", delay=60.0))
    assert (await store.state(task), await store.count("delayed")) == ("stopped", 0)


async def test_a_wish_comes_too_late_for_a_task_that_is_done(store: Store) -> None:
    task = await store.one(auto_remove=False, unique_key="k")
    server = await store.server()
    it = await store.claim_one(server)
    await store.tasks.cancel([task.id], "not wanted")
    await store.settle(server, ended(it))
    assert (await store.state(task), await store.count("interrupt")) == ("done", 0)


async def test_a_task_that_logged_an_error_is_not_removed_at_its_end(store: Store) -> None:
    task = await store.one(auto_remove=True)
    server = await store.server()
    it = await store.claim_one(server)
    await store.settle(server, ended(it), logs=[LogWrite(it, 0.0, 40, "app", "oh", None)])
    assert await store.state(task) == "done"


async def test_a_task_that_failed_is_not_removed_at_its_end(store: Store) -> None:
    task = await store.one(auto_remove=True)
    await store.run(await store.server(), "failed")
    assert await store.state(task) == "failed"


async def test_a_removed_task_leaves_a_tombstone_and_nothing_else(store: Store) -> None:
    await store.one(auto_remove=True, unique_key="k")
    server = await store.server()
    it = await store.claim_one(server)
    await store.tasks.cancel([it.id], "too late")
    log = LogWrite(it, 0.0, 20, "app", "hello", None)
    await store.settle(server, ended(it), contexts=[ContextWrite(it, 1, "{}")], logs=[log])
    tables = ("task", "result", "context", "log", "unique_task", "interrupt", "lease")
    assert [await store.count(table) for table in tables] == [0] * len(tables)
    assert await store.rows("select id from queued_tasks.tombstone") == [it.id]


@pytest.mark.parametrize("attempts", [["blocked"], ["blocked", "failed"]])
async def test_what_has_blocked_a_loop_goes_to_the_sync_workers_ever_after(store: Store, attempts: list[str]) -> None:
    await store.one()
    server = await store.server()
    for outcome in attempts:
        delay = 0.0 if outcome == "blocked" else 0.001
        await store.run(server, outcome, delay=delay)
    await wait_until(lambda: _promoted(store, attempts))
    it = await store.claim_one(server)
    assert next(lane.sync for lane in store.tasks.lanes if lane.id == it.lane)


async def _promoted(store: Store, attempts: list[str]) -> bool:
    return attempts[-1] == "blocked" or (await store.upkeep.promote(10))[0] == 1
