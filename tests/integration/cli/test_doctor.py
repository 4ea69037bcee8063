"""What `queued-tasks doctor` finds, and that it finds nothing where nothing is wrong."""

from __future__ import annotations

import json
import time
from collections.abc import AsyncIterator, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import pytest

from queued_tasks import Settings
from queued_tasks.integrations.cli.doctor import examine
from queued_tasks.integrations.cli.findings import Finding
from queued_tasks.runtime.alike import alike
from queued_tasks.runtime.gates import parse_limits
from queued_tasks.runtime.store.gates import GateStore
from queued_tasks.runtime.store.link import Link
from queued_tasks.runtime.store.schedules import Declaration, ScheduleStore
from tests.command import Rows, queued_tasks
from tests.databases import connected
from tests.servers import running_server

AWAY = "postgresql://postgres@127.0.0.1:1/postgres"
LONG_AGO = timedelta(hours=1)


@pytest.fixture
async def link(database: str) -> AsyncIterator[Link]:
    link = Link(database, "queued_tasks", name="test")
    yield link
    await link.close()


async def found(database: str, check: str, **given: Any) -> list[Finding]:
    """What that check finds; `open_for` and `dead` are those of `examine`, the rest are settings."""
    bounds = {name: given.pop(name) for name in ("open_for", "dead") if name in given}
    settings = Settings(database_url=database, **given)
    return [each async for each in examine(settings, **bounds) if each.check == check]


async def change(database: str, statement: str, *arguments: object) -> None:
    async with connected(database) as connection:
        await connection.execute(statement, *arguments)


async def beat(rows: Rows, name: str = "web-1", **details: object) -> None:
    await rows.serve(name, details={"clock": time.time(), **details})


# ---- the command


async def test_nothing_is_wrong_with_a_running_server(database: str) -> None:
    async with running_server(database, name="web-1"):
        ran = await queued_tasks("doctor", database=database)
        assert (ran.code, ran.out, ran.err) == (0, "Nothing is wrong.\n", "")
        document = await queued_tasks("doctor", "--json", database=database)
        assert (document.code, document.json, document.err) == (0, {"healthy": True, "findings": []}, "")


async def test_a_finding_is_exit_code_1_and_has_its_cure(database: str, rows: Rows) -> None:
    await rows.serve("web-1")
    await rows.serve("web-1")
    ran = await queued_tasks("doctor", "--json", database=database)
    assert (ran.code, ran.json["healthy"], ran.err) == (1, True, "")
    (finding,) = ran.json["findings"]
    assert list(finding) == ["check", "level", "finding", "cure"]
    assert (finding["check"], finding["level"]) == ("names", "warning")
    assert "--name" in finding["cure"]


async def test_no_server_is_exit_code_3(database: str) -> None:
    ran = await queued_tasks("doctor", database=database)
    assert (ran.code, ran.out.startswith("critical No server is running.\n")) == (3, True)


async def test_no_database_is_exit_code_3_and_still_a_document() -> None:
    ran = await queued_tasks("doctor", "--json", database=AWAY)
    assert (ran.code, ran.json["healthy"], ran.err) == (3, False, "")
    assert ran.json["findings"][0]["check"] == "connection"


async def test_no_schema_is_exit_code_3(empty_database: str) -> None:
    ran = await queued_tasks("doctor", "--json", database=empty_database)
    assert (ran.code, ran.json["findings"][0]["cure"]) == (3, "Run `queued-tasks migrate`.")


async def test_a_setting_that_is_malformed_is_wrong_usage_of_no_check(database: str) -> None:
    ran = await queued_tasks("doctor", "--json", database=database, QUEUE_LEASE_TTL="soon")
    assert (ran.code, "QUEUE_LEASE_TTL" in ran.err) == (1, True)


# ---- the database


async def test_acknowledged_tasks_that_a_crash_could_lose(database: str) -> None:
    async with connected(database) as connection:
        name = await connection.fetchval("select current_database()")
        await connection.execute(f'alter database "{name}" set synchronous_commit = off')
    (finding,) = await found(database, "durability")
    assert finding.finding.startswith("synchronous_commit is off")


async def test_rights_that_a_server_needs(database: str) -> None:
    role = f"guest_{uuid4().hex}"
    async with connected(database) as connection:
        await connection.execute(f"create role {role} login; grant usage on schema queued_tasks to {role}")
        await connection.execute(f"grant select on all tables in schema queued_tasks to {role}")
    dsn = database.replace("postgresql://postgres@", f"postgresql://{role}@")
    (finding,) = await found(dsn, "rights")
    assert f"The database user {role} lacks rights" in finding.finding
    assert "delete on " in finding.finding
    async with connected(database) as connection:
        await connection.execute(f"drop owned by {role}; drop role {role}")


async def test_notifications_that_do_not_arrive(database: str, empty_database: str) -> None:
    (finding,) = await found(database, "notifications", listen_database_url=empty_database)
    assert "did not arrive" in finding.finding


async def test_nobody_expects_notifications_that_are_off(database: str, empty_database: str) -> None:
    off = {"listen_database_url": empty_database, "use_postgresql_notify": False}
    assert await found(database, "notifications", **off) == []


async def test_a_listening_connection_that_can_not_be_opened(database: str) -> None:
    (finding,) = await found(database, "notifications", listen_database_url=AWAY)
    assert (finding.cure, "Nothing can listen" in finding.finding) == ("Correct QUEUE_LISTEN_DATABASE_URL.", True)


async def test_a_transaction_that_is_open_for_long(database: str) -> None:
    async with connected(database) as connection, connection.transaction():
        await connection.execute("select txid_current()")
        pid = await connection.fetchval("select pg_backend_pid()")
        findings = await found(database, "transactions", open_for=0.0)
        assert any(f"pid {pid}" in finding.finding for finding in findings)
        assert await found(database, "transactions") == []


async def test_tables_full_of_dead_rows(database: str, rows: Rows) -> None:
    async with connected(database) as connection:
        await connection.execute("alter table queued_tasks.tombstone set (autovacuum_enabled = false)")
        await connection.execute(
            "insert into queued_tasks.tombstone select gen_random_uuid() from generate_series(1, 9)"
        )
        await connection.execute("delete from queued_tasks.tombstone")
        await connection.execute("select pg_stat_force_next_flush()")
        await connection.execute("select pg_stat_clear_snapshot()")
    (finding,) = await found(database, "dead_rows", dead=5)
    assert "The table tombstone holds 9 dead rows and 0 live ones, never vacuumed" in finding.finding


async def test_a_clock_that_is_wrong(database: str, rows: Rows) -> None:
    await rows.serve(details={"clock": time.time() + 3_600})
    (finding,) = await found(database, "clock")
    assert "The host of web-1 has a clock that is 60 min ahead" in finding.finding


# ---- the servers


async def test_an_application_that_can_not_be_imported(database: str, rows: Rows) -> None:
    await beat(rows, error="Traceback ...\nModuleNotFoundError: No module named 'shop'")
    (finding,) = await found(database, "workers")
    assert finding.finding.endswith("No module named 'shop'")


@pytest.mark.parametrize(("state", "cure"), [("drained", "servers resume web-1"), ("blocked", "queued-tasks servers")])
async def test_servers_that_take_no_tasks(database: str, rows: Rows, state: str, cure: str) -> None:
    await rows.serve(state=state)
    (finding,) = await found(database, "servers")
    assert (finding.level, f"web-1 is {state}" in finding.finding, cure in finding.cure) == ("critical", True, True)


async def test_servers_of_one_name_that_take_no_tasks_are_all_told(database: str, rows: Rows) -> None:
    await rows.serve(state="drained")
    await rows.serve(state="starting")
    (finding,) = await found(database, "servers")
    assert finding.finding == "No server takes tasks: web-1 is drained, web-1 is starting."


async def test_a_server_that_was_lost_until_one_of_its_name_is_back(database: str, rows: Rows) -> None:
    await beat(rows, "web-1")
    await beat(rows, "web-2")
    await change(
        database,
        "select queued_tasks.rescue(h.server, h.beat_at, 5, 3) "
        "from queued_tasks.heartbeat h join queued_tasks.server s on s.id = h.server where s.name = 'web-1'",
    )
    (finding,) = await found(database, "servers")
    assert finding.finding.startswith("The server web-1 on host.a is lost")
    await beat(rows, "web-1")
    assert await found(database, "servers") == []


async def test_settings_that_differ_between_servers_and_here(database: str, rows: Rows) -> None:
    await beat(rows, "web-1")
    await beat(rows, "web-2")
    told: Mapping[str, Any] = alike(Settings(database_url=database))
    await settle_on(database, "web-1", {**told, "QUEUE_RETENTION_DAYS": 3})
    await settle_on(database, "web-2", told)
    (finding,) = await found(database, "settings")
    assert finding.finding == (
        "QUEUE_RETENTION_DAYS is not the same everywhere: 3 in web-1; 30 in this environment, web-2."
    )


async def test_settings_that_differ_between_servers_of_one_name(database: str, rows: Rows) -> None:
    told: Mapping[str, Any] = alike(Settings(database_url=database))
    await beat(rows)
    await settle_on(database, "web-1", {**told, "QUEUE_RETENTION_DAYS": 3})
    other = await rows.serve()
    await change(database, "update queued_tasks.server set settings = $2::json where id = $1", other, json.dumps(told))
    (finding,) = await found(database, "settings")
    assert finding.finding.endswith(f"; 30 in this environment, web-1 ({other}).")


async def test_a_key_that_differs_is_not_shown(database: str, rows: Rows) -> None:
    await beat(rows)
    await settle_on(database, "web-1", alike(Settings(secret_key="geheimnis")))
    (finding,) = await found(database, "settings", secret_key="another")
    assert "fingerprint" in finding.finding
    assert "geheimnis" not in finding.finding
    assert "another" not in finding.finding


async def test_limits_that_the_database_does_not_have(database: str, rows: Rows, link: Link) -> None:
    await beat(rows)
    await settle_on(database, "web-1", alike(Settings(channels="mail:10,sync:2")))
    await GateStore(link).change("mail", lambda _: parse_limits("mail", "6"))
    await GateStore(link).change("sync", lambda _: parse_limits("sync", "2"))
    (finding,) = await found(database, "settings")
    assert "limits mail to 10, the database to 6" in finding.finding
    assert "channels set mail 10" in finding.cure


# ---- tasks and schedules


async def test_tasks_in_lines_that_do_not_exist(database: str, rows: Rows) -> None:
    id = await rows.add()
    await change(database, "update queued_tasks.bundle set lane = 999")
    (finding,) = await found(database, "tasks")
    assert finding.finding == f"1 task stands in a line that does not exist: {id}."


async def test_tasks_that_wait_for_parents_that_have_ended(database: str, rows: Rows) -> None:
    parent = await rows.add()
    child = await rows.add(parents=(parent,))
    assert await found(database, "tasks") == []
    await change(
        database,
        "insert into queued_tasks.result (id, state, attempt, ended_at) values ($1, 'done', 1, now() - $2::interval)",
        parent,
        LONG_AGO,
    )
    (finding,) = await found(database, "tasks")
    assert (str(child) in finding.finding, "although all parents have ended" in finding.finding) == (True, True)


async def test_tasks_that_are_due_and_stand_in_no_line(database: str, rows: Rows) -> None:
    await rows.add(run_at=datetime.now(UTC) + LONG_AGO)
    await change(database, "update queued_tasks.delayed set run_at = now() - $1::interval", LONG_AGO)
    (finding,) = await found(database, "tasks")
    assert "nobody has lined it up" in finding.finding


async def test_tasks_that_servers_hold_which_are_gone(database: str, rows: Rows) -> None:
    await rows.add()
    await rows.run(await rows.serve(), None)
    await change(database, "delete from queued_tasks.heartbeat")
    await change(database, "update queued_tasks.lease set claimed_at = now() - $1::interval", LONG_AGO)
    (finding,) = await found(database, "tasks")
    assert "held by a server that is gone" in finding.finding


async def test_a_task_that_waits_although_slots_are_free(database: str, rows: Rows) -> None:
    await beat(rows)
    await rows.add()
    assert await found(database, "waiting") == []
    await change(database, "update queued_tasks.task set created_at = now() - $1::interval", LONG_AGO)
    (finding,) = await found(database, "waiting")
    assert "for 1 h although 197 slots are free" in finding.finding


async def test_a_schedule_that_nobody_runs_unless_it_rests(database: str, link: Link) -> None:
    schedules = ScheduleStore(link)
    await schedules.declare([Declaration("report", "* * * * *", "UTC", "app:report")], newly=True)
    assert await found(database, "schedules") == []
    await change(database, "update queued_tasks.schedule set since = now() - $1::interval", LONG_AGO)
    (finding,) = await found(database, "schedules")
    assert "Nobody runs the schedule report" in finding.finding
    await schedules.pause("report", True)
    assert await found(database, "schedules") == []


async def settle_on(database: str, server: str, settings: Mapping[str, Any]) -> None:
    """Let a server have been started with these settings."""
    told = json.dumps(dict(settings))
    await change(database, "update queued_tasks.server set settings = $2::json where name = $1", server, told)


# ---- functions


async def _decline(rows: Rows, channel: str = "default") -> None:
    """The only server claims a task of app:gone, and can't run it."""
    await rows.add("app:gone", channel=channel)
    await rows.park(await rows.serve(), "the module app has no gone")


async def test_a_function_that_no_server_knows_is_named_with_the_reason(database: str, rows: Rows) -> None:
    await _decline(rows)
    (finding,) = await found(database, "functions")
    assert "1 task of app:gone waits" in finding.finding
    assert "the module app has no gone" in finding.finding


async def test_a_function_that_another_server_may_know_is_fine(database: str, rows: Rows) -> None:
    await _decline(rows)
    await rows.serve("web-2")
    assert await found(database, "functions") == []


@pytest.mark.parametrize("intake", [{"channels": ["mail"]}, {"excluded_channels": ["gpu"]}])
async def test_what_a_server_knows_that_does_not_take_the_channel_is_of_no_use(
    database: str, rows: Rows, intake: Mapping[str, Any]
) -> None:
    await _decline(rows, "gpu")
    await rows.serve("web-2", details=intake)
    (finding,) = await found(database, "functions")
    assert "1 task of app:gone waits" in finding.finding
    await rows.serve("gpu-1", details={"channels": ["gpu"]})
    assert await found(database, "functions") == []
