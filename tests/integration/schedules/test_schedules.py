"""Fires against a real PostgreSQL: one for each due time, whoever tries, and whenever somebody dies."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import timedelta
from uuid import UUID

import pytest

from queued_tasks.runtime.cron import Cron
from queued_tasks.runtime.ids import new_id
from queued_tasks.runtime.store.link import Link
from queued_tasks.runtime.store.schedules import Fired, ScheduleStore
from queued_tasks.runtime.store.tasks import TaskStore
from queued_tasks.runtime.task import Stance
from tests.command import Rows
from tests.databases import connected
from tests.scheduled import HOURLY, MINUTELY, MONTH, Cluster, new_task

# ---- one fire for a due time


async def test_a_fire_adds_its_task_and_says_so(hourly: Cluster) -> None:
    assert (await hourly.fire(hourly.due(1)), await hourly.tasks()) == (Fired.FIRED, 1)


async def test_a_due_time_is_fired_once(hourly: Cluster) -> None:
    await hourly.fire(hourly.due(1))
    assert (await hourly.fire(hourly.due(1)), await hourly.tasks()) == (Fired.TAKEN, 1)


async def test_servers_that_race_for_a_due_time_add_one_task(hourly: Cluster) -> None:
    links = [Link(hourly.dsn, "queued_tasks", name=f"server {n}") for n in range(8)]
    outcomes = await asyncio.gather(
        *(ScheduleStore(link).fire(HOURLY, hourly.due(1), new_task(), patient=False) for link in links)
    )
    await asyncio.gather(*(link.close() for link in links))
    assert (sorted(outcomes), await hourly.tasks()) == ([Fired.FIRED, *[Fired.TAKEN] * 7], 1)


async def test_a_server_killed_before_its_fire_is_committed_leaves_it_to_another(hourly: Cluster) -> None:
    async with connected(hourly.dsn) as victim:
        make = "insert into queued_tasks.lane (channel, priority, sync, again) values ('default', 0, false, false) "
        lane = await victim.fetchval(f"{make} returning id")
        transaction = victim.transaction()
        await transaction.start()
        await victim.fetchval(
            "select queued_tasks.fire($1, $2, $3, $4, false, null, $5, 'app:report', 0::smallint, '[]', null, null, "
            f"'default', {lane}, 0::smallint, 3::smallint, null, null, false)",
            *(HOURLY.name, HOURLY.cron, HOURLY.timezone, hourly.due(1), new_id()),
        )
        other = asyncio.create_task(hourly.fire(hourly.due(1)))
        await hourly.connection.execute("select pg_terminate_backend($1)", victim.get_server_pid())
        assert (await other, await hourly.tasks()) == (Fired.FIRED, 1)


async def test_a_time_before_one_that_was_seen_to_is_never_fired(hourly: Cluster) -> None:
    await hourly.store.skip(HOURLY, hourly.due(1), "missed")
    assert await hourly.fire(hourly.due(2)) == Fired.TAKEN


async def test_a_time_that_the_clock_of_the_database_has_not_reached_is_not_fired(hourly: Cluster) -> None:
    assert (await hourly.fire(hourly.due(-2)), await hourly.fires()) == (Fired.EARLY, [])


async def test_a_clock_that_was_ahead_and_is_set_back_silences_nothing(hourly: Cluster) -> None:
    ahead = await hourly.connection.fetchval(
        "insert into queued_tasks.schedule_fire (name, due_at, task) values ('hourly', $1, $2) returning due_at",
        hourly.due(-24),
        new_id(),
    )
    assert await hourly.fire(hourly.due(1)) is Fired.FIRED
    assert await hourly.fire(hourly.due(0)) is Fired.SKIPPED, "the one before is running"
    (row,) = await hourly.store.look()
    assert (row.after, ahead > row.now) == (hourly.due(0), True)


AHEAD = timedelta(days=1)


@pytest.fixture
async def ahead(minutely: Cluster) -> Cluster:
    """MINUTELY, as it was declared while the clock was ahead, which has been set back since."""
    query = "update queued_tasks.schedule set since = now() + $1::interval, seen_at = now() + $1::interval"
    await minutely.connection.execute(query, AHEAD)
    return minutely


async def test_a_schedule_declared_while_the_clock_was_ahead_fires_what_is_due_since_it_is_set_back(
    ahead: Cluster,
) -> None:
    (row,) = await ahead.store.look()
    (due,) = Cron(row.cron, row.timezone).plan(row.after, row.now, catch_up=True).fires
    assert (await ahead.fire(due, of=MINUTELY), row.now - due < timedelta(minutes=1)) == (Fired.FIRED, True)


async def test_a_schedule_said_again_forgets_a_time_that_a_clock_has_not_reached(ahead: Cluster) -> None:
    await ahead.store.declare([MINUTELY], newly=False)
    query = "select bool_and(since < now() and seen_at < now()) from queued_tasks.schedule"
    assert await ahead.connection.fetchval(query)


async def test_a_declaration_confirmed_while_the_clock_was_ahead_holds_for_a_quarter_of_an_hour_at_most(
    ahead: Cluster,
) -> None:
    other = replace(MINUTELY, cron="30 * * * *")
    await ahead.store.declare([other], newly=False)
    (kept,) = await ahead.store.look()
    await ahead.connection.execute("update queued_tasks.schedule set seen_at = seen_at - interval '16 minutes'")
    await ahead.store.declare([other], newly=False)
    (taken,) = await ahead.store.look()
    assert (kept.cron, taken.cron) == (MINUTELY.cron, other.cron)


async def test_one_schedule_from_a_clock_that_was_ahead_hides_no_other(ahead: Cluster) -> None:
    await ahead.store.declare([HOURLY], newly=True)
    await ahead.connection.execute(
        "update queued_tasks.schedule set seen_at = now() + interval '3 days' where name = 'minutely'"
    )
    assert [row.name for row in await ahead.store.look()] == ["hourly", "minutely"]


async def test_a_time_from_before_the_schedule_was_known_is_not_fired(cluster: Cluster) -> None:
    await cluster.declare(HOURLY, since=timedelta(0))
    assert await cluster.fire(cluster.due(1)) == Fired.TAKEN


# ---- no overlap


async def active_task(cluster: Cluster) -> UUID:
    await cluster.fire(cluster.due(5))
    return UUID(str(await cluster.connection.fetchval("select id from queued_tasks.task")))


async def test_a_time_is_skipped_while_the_previous_run_is_enqueued(hourly: Cluster) -> None:
    await active_task(hourly)
    assert (await hourly.fire(hourly.due(4)), await hourly.fires()) == (
        Fired.SKIPPED,
        [(hourly.due(5), True), (hourly.due(4), False)],
    )


async def test_a_time_is_skipped_while_the_previous_run_is_running(hourly: Cluster) -> None:
    rows = Rows(hourly.link)
    await active_task(hourly)
    await rows.run(await rows.serve(), None)
    assert await hourly.fire(hourly.due(4)) == Fired.SKIPPED


async def test_a_time_is_skipped_while_the_previous_run_waits_for_a_retry(hourly: Cluster) -> None:
    rows = Rows(hourly.link)
    await active_task(hourly)
    await rows.run(await rows.serve(), "failed", delay=3600.0, exception_name="ValueError")
    assert await hourly.fire(hourly.due(4)) == Fired.SKIPPED


async def test_a_run_that_skipped_a_time_still_counts_for_the_next(hourly: Cluster) -> None:
    await active_task(hourly)
    await hourly.fire(hourly.due(4))
    assert await hourly.fire(hourly.due(3)) == Fired.SKIPPED


@pytest.mark.parametrize("outcome", ["done", "cancelled"])
async def test_a_time_is_fired_once_the_previous_run_has_ended(hourly: Cluster, outcome: str) -> None:
    rows = Rows(hourly.link)
    await active_task(hourly)
    await rows.run(await rows.serve(), outcome)
    assert await hourly.fire(hourly.due(4)) == Fired.FIRED


async def test_a_stopped_run_does_not_keep_the_next_from_firing(hourly: Cluster) -> None:
    rows = Rows(hourly.link)
    await active_task(hourly)
    await rows.run(await rows.serve(), "stopped", delay=float("inf"))
    assert await hourly.fire(hourly.due(4)) == Fired.FIRED


async def test_a_run_whose_function_no_server_knows_any_more_keeps_the_next_from_nothing(hourly: Cluster) -> None:
    """It was renamed in a deploy that interrupted the run. While some server may know it, the run is waited for."""
    rows, store = Rows(hourly.link), TaskStore(hourly.link)
    one, other = await rows.serve(), await rows.serve()
    await active_task(hourly)
    for server, fired in ((one, Fired.SKIPPED), (other, Fired.FIRED)):
        await store.take_stance(server, [Stance(HOURLY.function, "unknown", "there is no report in app")])
        assert await hourly.fire(hourly.due(4) if server is one else hourly.due(3)) == fired


async def test_a_patient_schedule_waits_for_the_previous_run_and_skips_nothing(hourly: Cluster) -> None:
    await active_task(hourly)
    assert (await hourly.fire(hourly.due(4), patient=True), await hourly.fires()) == (
        Fired.BUSY,
        [(hourly.due(5), True)],
    )


async def test_a_unique_task_that_is_there_already_is_the_run_of_the_fire(hourly: Cluster) -> None:
    rows = Rows(hourly.link)
    there = await rows.add(unique_key="report")
    await hourly.store.fire(HOURLY, hourly.due(1), new_task(unique_key="report"), patient=False)
    assert await hourly.connection.fetchval("select task from queued_tasks.schedule_fire") == there


# ---- paused, changed


async def test_a_paused_schedule_fires_nothing_and_records_nothing(hourly: Cluster) -> None:
    await hourly.store.pause("hourly", True)
    assert (await hourly.fire(hourly.due(1)), await hourly.fires()) == (Fired.PAUSED, [])


async def test_what_was_due_during_a_pause_is_not_missed_when_it_goes_on(hourly: Cluster) -> None:
    await hourly.store.pause("hourly", True)
    await hourly.store.pause("hourly", False)
    assert await hourly.fire(hourly.due(1)) == Fired.TAKEN


async def test_a_pause_outlives_a_new_declaration(hourly: Cluster) -> None:
    await hourly.store.pause("hourly", True)
    await hourly.store.declare([replace(HOURLY, cron="30 * * * *")], newly=True)
    (row,) = await hourly.store.look()
    assert (row.cron, row.paused) == ("30 * * * *", True)


async def test_an_unknown_schedule_can_not_be_paused(cluster: Cluster) -> None:
    assert not await cluster.store.pause("hourly", True)


async def test_a_server_with_an_older_declaration_does_not_fire(hourly: Cluster) -> None:
    await hourly.declare(replace(HOURLY, cron="30 * * * *"))
    assert await hourly.fire(hourly.due(1)) == Fired.FOREIGN


async def test_a_function_that_has_lost_the_name_of_its_schedule_does_not_fire(hourly: Cluster) -> None:
    await hourly.declare(replace(HOURLY, function="shop:report"))
    assert await hourly.fire(hourly.due(1)) == Fired.FOREIGN


async def test_a_function_that_was_only_moved_has_missed_what_was_due(hourly: Cluster) -> None:
    (before,) = await hourly.store.look()
    await hourly.store.declare([replace(HOURLY, function="shop:report")], newly=True)
    (after,) = await hourly.store.look()
    assert (after.function, after.after) == ("shop:report", before.after)


async def test_a_changed_schedule_has_missed_nothing(hourly: Cluster) -> None:
    await hourly.store.declare([replace(HOURLY, cron="30 * * * *")], newly=True)
    (row,) = await hourly.store.look()
    assert row.after >= hourly.now


async def test_a_schedule_declared_again_goes_on_where_it_was(hourly: Cluster) -> None:
    (before,) = await hourly.store.look()
    await hourly.store.declare([HOURLY], newly=True)
    (after,) = await hourly.store.look()
    assert after.after == before.after


async def test_an_older_declaration_does_not_replace_one_that_was_confirmed_lately(hourly: Cluster) -> None:
    await hourly.store.declare([replace(HOURLY, cron="30 * * * *")], newly=False)
    (row,) = await hourly.store.look()
    assert row.cron == HOURLY.cron


async def test_an_older_declaration_returns_when_nobody_confirms_the_newer_one(hourly: Cluster) -> None:
    await hourly.connection.execute("update queued_tasks.schedule set seen_at = now() - interval '16 minutes'")
    await hourly.store.declare([replace(HOURLY, cron="30 * * * *")], newly=False)
    (row,) = await hourly.store.look()
    assert row.cron == "30 * * * *"


async def test_an_older_declaration_that_returns_goes_on_where_the_newer_one_was_left(hourly: Cluster) -> None:
    await hourly.store.declare([replace(HOURLY, cron="30 4 * * *")], newly=True)
    query = "update queued_tasks.schedule set since = now() - interval '9 hours', seen_at = $1"
    await hourly.connection.execute(query, hourly.due(3) + timedelta(minutes=1))
    await hourly.store.declare([HOURLY], newly=False)
    (row,) = await hourly.store.look()
    missed = Cron(row.cron, row.timezone).plan(row.after, hourly.due(0), catch_up=True).fires
    assert missed == (hourly.due(2), hourly.due(1), hourly.due(0))


async def test_a_schedule_that_is_not_declared_any_more_leaves_the_list(hourly: Cluster) -> None:
    await hourly.connection.execute("update queued_tasks.schedule set seen_at = now() - interval '2 days'")
    await hourly.declare(MINUTELY)
    assert [row.name for row in await hourly.store.look()] == ["minutely"]


async def test_old_fires_are_removed_but_for_the_newest(hourly: Cluster) -> None:
    for hours in (3, 2, 1):
        await hourly.store.skip(HOURLY, hourly.due(hours), "missed")
    await hourly.connection.execute("update queued_tasks.schedule_fire set fired_at = now() - interval '31 days'")
    await hourly.store.prune(MONTH, 100)
    assert await hourly.fires() == [(hourly.due(1), False)]


async def test_the_fire_of_a_task_that_is_kept_is_kept(hourly: Cluster) -> None:
    await active_task(hourly)
    await hourly.store.skip(HOURLY, hourly.due(1), "missed")
    await hourly.connection.execute("update queued_tasks.schedule_fire set fired_at = now() - interval '31 days'")
    await hourly.store.prune(MONTH, 100)
    assert await hourly.fires() == [(hourly.due(5), True), (hourly.due(1), False)]
