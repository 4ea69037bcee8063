"""Fires against a real PostgreSQL: one for each due time, whoever tries, and whenever somebody dies."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from uuid import UUID

import asyncpg
import msgspec
import pytest
from loguru import logger

from queued_tasks.actors.messages import Schedules, Tick
from queued_tasks.actors.scheduler import LONGEST_SLEEP, Scheduler
from queued_tasks.runtime import wire
from queued_tasks.runtime.cron import Cron
from queued_tasks.runtime.execute import added_of
from queued_tasks.runtime.ids import new_id
from queued_tasks.runtime.signing import Signer
from queued_tasks.runtime.store.link import Link
from queued_tasks.runtime.store.schedules import Declaration, Fired, ScheduleStore
from queued_tasks.runtime.store.tasks import TaskStore
from queued_tasks.runtime.task import Executor, NewTask, Stance
from tests.clock import Clock
from tests.command import Rows
from tests.databases import connected

HOURLY = Declaration("hourly", "0 * * * *", "UTC", "app:report")
MINUTELY = Declaration("minutely", "* * * * *", "UTC", "app:report")
MONTH = 30 * 86_400.0


@dataclass
class Cluster:
    """A database with schedules, as a server sees it."""

    dsn: str
    link: Link
    connection: asyncpg.Connection
    now: datetime

    @property
    def store(self) -> ScheduleStore:
        return ScheduleStore(self.link)

    def due(self, hours_ago: int) -> datetime:
        """A time in the past at which HOURLY is due."""
        return self.now.replace(minute=0, second=0, microsecond=0) - timedelta(hours=hours_ago)

    async def declare(self, of: Declaration, *, since: timedelta = timedelta(days=2)) -> None:
        """Let a schedule be known, for so long."""
        await self.store.declare([of], newly=True)
        query = "update queued_tasks.schedule set since = now() - $1::interval where name = $2"
        await self.connection.execute(query, since, of.name)

    async def fire(self, due: datetime, *, patient: bool = False, of: Declaration = HOURLY) -> Fired:
        """Try to fire."""
        return await self.store.fire(of, due, new_task(), patient=patient)

    async def tasks(self) -> int:
        return int(await self.connection.fetchval("select count(*) from queued_tasks.task"))

    async def fires(self) -> list[tuple[datetime, bool]]:
        """The due times seen to, and whether each was fired."""
        rows = await self.connection.fetch("select due_at, task from queued_tasks.schedule_fire order by due_at")
        return [(row["due_at"], row["task"] is not None) for row in rows]


def new_task(function: str = HOURLY.function, **options: object) -> NewTask:
    return NewTask(id=new_id(), function=function, executor=Executor.ASYNC, args="[]", **options)  # type: ignore[arg-type]


@pytest.fixture
async def cluster(database: str) -> AsyncIterator[Cluster]:
    link = Link(database, "queued_tasks", name="test")
    async with connected(database) as connection:
        yield Cluster(database, link, connection, await connection.fetchval("select now()"))
    await link.close()


@pytest.fixture
async def hourly(cluster: Cluster) -> Cluster:
    await cluster.declare(HOURLY)
    return cluster


@pytest.fixture
async def minutely(cluster: Cluster) -> Cluster:
    await cluster.declare(MINUTELY)
    return cluster


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


# ---- the actor


def declared(of: Declaration, *, catch_up: bool = False) -> wire.Schedule:
    return wire.Schedule(of.name, of.cron, of.timezone, catch_up, added_of(new_task(of.function)))


def scheduler(cluster: Cluster, lined: list[int] | None = None, signer: Signer | None = None) -> Scheduler:
    heard: list[int] = [] if lined is None else lined
    return Scheduler({}, cluster.store, heard.append, signer, retention=MONTH)


async def test_a_schedule_that_was_just_made_known_fires_nothing(cluster: Cluster) -> None:
    await scheduler(cluster).receive(Schedules((declared(MINUTELY),)))
    (row,) = await cluster.store.look()
    assert (row.name, await cluster.fires()) == ("minutely", [])


async def test_what_is_due_is_fired_and_what_was_missed_is_recorded_as_one_skip(cluster: Cluster) -> None:
    await cluster.declare(MINUTELY, since=timedelta(hours=3))
    lined: list[int] = []
    await scheduler(cluster, lined).receive(Schedules((declared(MINUTELY),)))
    (missed, was_fired), (fired, now_fired) = await cluster.fires()
    assert (was_fired, now_fired, fired - missed, lined) == (False, True, timedelta(minutes=1), [1])


async def test_a_skip_says_since_when_no_server_was_there(cluster: Cluster) -> None:
    await cluster.declare(HOURLY, since=timedelta(hours=3))
    (row,) = await cluster.store.look()
    await scheduler(cluster).receive(Schedules((declared(HOURLY),)))
    reason = await cluster.connection.fetchval("select reason from queued_tasks.schedule_fire where task is null")
    assert reason.endswith(f"due after {row.after.isoformat(timespec='seconds')}")


async def test_missed_times_are_made_up_for_one_run_after_the_other(cluster: Cluster) -> None:
    await cluster.declare(HOURLY, since=timedelta(hours=3))
    rows = Rows(cluster.link)
    server = await rows.serve()
    for _ in range(3):  # an actor of its own each time, as after a restart
        await scheduler(cluster).receive(Schedules((declared(HOURLY, catch_up=True),)))
        assert await cluster.connection.fetchval("select count(*) from queued_tasks.ready") == 1
        await rows.run(server)
    assert await cluster.fires() == [(cluster.due(hours), True) for hours in (2, 1, 0)]


async def test_a_look_finds_nothing_to_do_before_the_next_due_time(cluster: Cluster) -> None:
    actor = scheduler(cluster)
    await actor.receive(Schedules((declared(HOURLY),)))
    await cluster.declare(HOURLY, since=timedelta(hours=3))
    await actor.receive(Tick())
    assert await cluster.fires() == []


async def test_a_schedule_that_waits_for_a_run_does_not_hold_up_the_others(cluster: Cluster) -> None:
    await cluster.declare(HOURLY, since=timedelta(hours=3))
    await cluster.declare(MINUTELY, since=timedelta(minutes=2))
    await scheduler(cluster).receive(Schedules((declared(HOURLY, catch_up=True), declared(MINUTELY))))
    query = "select distinct name from queued_tasks.schedule_fire where task is not null"
    fired = await cluster.connection.fetch(query)
    assert sorted(row["name"] for row in fired) == ["hourly", "minutely"]


async def test_a_task_is_told_what_it_was_fired_for(cluster: Cluster) -> None:
    await cluster.declare(HOURLY, since=timedelta(hours=1))
    await scheduler(cluster).receive(Schedules((declared(HOURLY, catch_up=True),)))
    context = msgspec.json.decode(await cluster.connection.fetchval("select context from queued_tasks.task"))
    assert context == {"schedule": {"name": "hourly", "due_at": cluster.due(0).astimezone(UTC).isoformat()}}


async def test_a_fired_task_is_signed_where_tasks_are_signed(cluster: Cluster) -> None:
    await cluster.declare(HOURLY, since=timedelta(hours=1))
    signer = Signer(["secret"])
    await scheduler(cluster, signer=signer).receive(Schedules((declared(HOURLY, catch_up=True),)))
    row = await cluster.connection.fetchrow("select id, context, signature from queued_tasks.task")
    assert row
    assert signer.accepts(
        NewTask(
            id=row["id"],
            function="app:report",
            executor=Executor.ASYNC,
            args="[]",
            context=row["context"],
            signature=row["signature"],
        )
    )


@pytest.fixture
def warnings() -> Iterator[list[str]]:
    lines: list[str] = []
    sink = logger.add(lines.append, level="WARNING", format="{message}")
    yield lines
    logger.remove(sink)


async def look_twice(cluster: Cluster, newest: Declaration, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a server of HOURLY see what holds instead."""
    monkeypatch.setattr("queued_tasks.actors.scheduler.time", clock := Clock())
    actor = scheduler(cluster)
    await actor.receive(Schedules((declared(HOURLY),)))
    await cluster.declare(newest)
    for _ in range(2):
        clock.now += LONGEST_SLEEP
        await actor.receive(Tick())


@pytest.mark.parametrize("cron", [HOURLY.cron, "30 * * * *"])
async def test_a_server_says_once_that_another_function_has_taken_the_name_of_its_schedule(
    cluster: Cluster, warnings: list[str], monkeypatch: pytest.MonkeyPatch, cron: str
) -> None:
    await look_twice(cluster, replace(HOURLY, cron=cron, function="shop:report"), monkeypatch)
    (warning,) = warnings
    assert [part in warning for part in ("hourly", "app:report", "shop:report", "name=")] == [True] * 4
    assert await cluster.fires() == []


async def test_a_deploy_of_another_time_for_the_same_function_is_no_news(
    cluster: Cluster, warnings: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    await look_twice(cluster, replace(HOURLY, cron="30 * * * *"), monkeypatch)
    assert warnings == []


async def test_without_schedules_the_database_is_left_alone(cluster: Cluster) -> None:
    await cluster.connection.execute("drop table queued_tasks.schedule")
    await scheduler(cluster).receive(Schedules(()))
    await scheduler(cluster).receive(Tick())
    assert await cluster.tasks() == 0
