"""The actor that fires schedules: what is due, what was missed, and what it says of others."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, timedelta

import msgspec
import pytest
from loguru import logger

from queued_tasks.actors.messages import Schedules, Tick
from queued_tasks.actors.scheduler import LONGEST_SLEEP, Scheduler
from queued_tasks.runtime import wire
from queued_tasks.runtime.execute import added_of
from queued_tasks.runtime.signing import Signer
from queued_tasks.runtime.store.schedules import Declaration
from queued_tasks.runtime.task import Executor, NewTask
from tests.clock import Clock
from tests.command import Rows
from tests.scheduled import HOURLY, MINUTELY, MONTH, Cluster, new_task


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
