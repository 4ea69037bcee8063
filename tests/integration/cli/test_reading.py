"""The command line as operators and scripts meet it: documents, tables, exit codes, errors."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import fields
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import uuid4

import pytest

from queued_tasks.runtime.task import Task
from tests.command import Rows, queued_tasks
from tests.databases import connected

AWAY = "postgresql://somebody:hunter2@127.0.0.1:1/none"
SERVER_FIELDS = (
    "id name host state version workers slots busy free claimed_per_minute settled_per_minute load memory "
    "started_at beat_at channels excluded_channels kinds"
)
COUNTS = {"enqueued": 0, "waiting": 0, "doing": 0, "done": 0, "failed": 0, "cancelled": 0, "stopped": 0}
READING = [("status",), ("servers",), ("stats",), ("tasks", "list")]


# ---- documents


@pytest.mark.parametrize("command", READING)
async def test_a_document_is_all_that_json_prints(database: str, command: tuple[str, ...]) -> None:
    ran = await queued_tasks(*command, "--json", database=database)
    assert (ran.code, ran.err, type(ran.json) in (list, dict)) == (0, "", True)


async def test_a_task_row_has_the_fields_of_the_read_model(database: str, rows: Rows) -> None:
    await rows.add()
    ran = await queued_tasks("tasks", "list", "--json", database=database)
    assert list(ran.json[0]) == [field.name for field in fields(Task)]


async def test_a_task_row_says_what_became_of_the_task(database: str, rows: Rows) -> None:
    id = await rows.add(args='["ann@example.com"]', timeout=300.0)
    await rows.run(await rows.serve(), result='{"sent": true}')
    task = (await queued_tasks("tasks", "show", id, "--json", database=database)).json
    shown = {name: task[name] for name in ("id", "name", "state", "args", "result", "timeout", "attempt", "server")}
    assert shown == {
        "id": str(id),
        "name": "send",
        "state": "done",
        "args": ["ann@example.com"],
        "result": {"sent": True},
        "timeout": 300.0,
        "attempt": 1,
        "server": "web-1",
    }


async def test_a_server_row_has_the_documented_fields(database: str, rows: Rows) -> None:
    await rows.serve()
    ran = await queued_tasks("servers", "--json", database=database)
    assert list(ran.json[0]) == SERVER_FIELDS.split()


async def test_a_server_row_shows_what_the_server_says_of_itself(database: str, rows: Rows) -> None:
    details: dict[str, object] = {
        "claimed_per_minute": 12.5,
        "settled_per_minute": 11,
        "load": 0.5,
        "memory": 1000,
        "channels": ["mail"],
    }
    await rows.serve(details=details)
    (server,) = (await queued_tasks("servers", "--json", database=database)).json
    assert {name: server[name] for name in details} == details


async def test_a_server_that_says_little_has_zeros_and_nulls(database: str, rows: Rows) -> None:
    await rows.serve()
    (server,) = (await queued_tasks("servers", "--json", database=database)).json
    names = ("slots", "busy", "free", "claimed_per_minute", "settled_per_minute", "load", "memory", "channels")
    assert [server[name] for name in names] == [200, 3, 197, 0, 0, None, None, []]


async def test_a_silent_server_is_shown_as_lost(database: str, rows: Rows) -> None:
    await rows.serve()
    ran = await queued_tasks("servers", "--json", database=database, QUEUE_LEASE_TTL="0.000001")
    assert [server["state"] for server in ran.json] == ["lost"]


async def test_a_server_that_left_in_order_is_shown_as_stopped(database: str, rows: Rows) -> None:
    await rows.leave(await rows.serve())
    ran = await queued_tasks("servers", "--json", database=database)
    assert [(server["state"], server["beat_at"]) for server in ran.json] == [("stopped", None)]


async def test_stats_counts_tasks_by_state_and_adds_up_the_servers(database: str, rows: Rows) -> None:
    await rows.add()
    await rows.add()
    await rows.run(await rows.serve())
    await rows.serve("web-2")
    ran = await queued_tasks("stats", "--json", database=database)
    servers = {"servers": 2, "workers": 4, "busy": 6, "free": 394}
    assert ran.json == COUNTS | {"enqueued": 1, "done": 1} | servers


async def test_a_log_row_has_the_documented_fields(database: str, rows: Rows) -> None:
    id = await rows.add()
    async with connected(database) as connection:
        await connection.execute(
            "insert into queued_tasks.log (task_id, attempt, at, level, logger, message) "
            "values ($1, 1, now(), 30, 'app', 'slow')",
            id,
        )
    (line,) = (await queued_tasks("tasks", "logs", id, "--json", database=database)).json
    assert line == {"at": line["at"], "level": "WARNING", "logger": "app", "message": "slow", "exception": None}


async def test_status_tells_the_database_the_servers_and_the_tasks(database: str, rows: Rows) -> None:
    await rows.serve()
    await rows.add()
    document = (await queued_tasks("status", "--json", database=database)).json
    assert document["healthy"] is True
    assert document["servers"] == {"running": 1, "claiming": 1, "free": 197}
    assert document["tasks"] == COUNTS | {"enqueued": 1}
    assert document["database"] | {"version": "", "migration": 0} == {
        "version": "",
        "schema": "queued_tasks",
        "migration": 0,
        "embedded": False,
    }


async def test_a_wait_is_counted_from_when_the_task_was_due(database: str, rows: Rows) -> None:
    await rows.add(run_at=datetime.now(UTC) - timedelta(hours=1))
    await rows.add(run_at=datetime.now(UTC) + timedelta(hours=1))
    document = (await queued_tasks("status", "--json", database=database)).json
    assert document["oldest_waiting_seconds"] < 3600


async def test_what_was_cancelled_or_removed_in_line_is_not_kept_waiting(database: str, rows: Rows) -> None:
    cancelled, removed, live = [await rows.add() for _ in range(3)]
    for id in (cancelled, removed):
        await queued_tasks("tasks", "cancel", id, "--yes", database=database)
    async with connected(database) as connection:
        await connection.execute(
            "update queued_tasks.task set created_at = now() - interval '1 hour' where id <> $1", live
        )
        await connection.execute("select queued_tasks.remove_tasks(array[$1::uuid])", removed)
        behind = (await queued_tasks("status", "--json", database=database)).json
        await queued_tasks("tasks", "cancel", live, "--yes", database=database)
        nothing = (await queued_tasks("status", "--json", database=database)).json
    assert (behind["oldest_waiting_seconds"] < 3_000, nothing["oldest_waiting_seconds"]) == (True, None)


# ---- filters


async def test_tasks_are_listed_newest_first_a_page_at_a_time(database: str, rows: Rows) -> None:
    first, second, _third = [str(await rows.add()) for _ in range(3)]
    ran = await queued_tasks("tasks", "list", "--before", _third, "--limit", 2, "--json", database=database)
    assert [task["id"] for task in ran.json] == [second, first]


@pytest.mark.parametrize("filter", [("--name", "other"), ("--channel", "mail"), ("--state", "done")])
async def test_a_list_holds_only_what_matches(database: str, rows: Rows, filter: tuple[str, str]) -> None:
    wanted = await rows.add(name="other", channel="mail")
    await rows.run(await rows.serve())
    await rows.add()
    ran = await queued_tasks("tasks", "list", *filter, "--json", database=database)
    assert [task["id"] for task in ran.json] == [str(wanted)]


# ---- people


async def test_a_table_of_tasks_fits_eighty_columns_with_ids_in_full(database: str, rows: Rows) -> None:
    id = await rows.add("app:a_function_with_a_name_that_is_longer_than_there_is_room_for")
    ran = await queued_tasks("tasks", "list", database=database)
    assert (str(id) in ran.out, max(map(len, ran.out.splitlines())) <= 80) == (True, True)


async def test_a_pipe_gets_names_in_full(database: str, rows: Rows) -> None:
    name = "a_function_with_a_name_that_is_longer_than_there_is_room_for"
    await rows.add(f"app:{name}")
    assert name in (await queued_tasks("tasks", "list", database=database, COLUMNS="")).out


async def test_a_stored_text_can_not_command_the_terminal(database: str, rows: Rows) -> None:
    id = await rows.add(name="\x1b]0;owned\x07[bold]red[/bold]")
    ran = await queued_tasks("tasks", "show", id, database=database)
    assert ("\x1b" in ran.out, r"\x1b]0;owned\x07[bold]red[/bold]" in ran.out) == (False, True)


async def test_a_failed_task_is_shown_with_its_error(database: str, rows: Rows) -> None:
    id = await rows.add()
    await rows.fail(await rows.serve())
    assert "ValueError: no such address" in (await queued_tasks("tasks", "show", id, database=database)).out


@pytest.mark.parametrize(
    ("command", "sentence"),
    [
        (("tasks", "list"), "No tasks yet."),
        (("tasks", "list", "--state", "failed"), "No task matches."),
        (("servers",), "No servers. Start one with `queued-tasks start"),
        (("stats",), "No server is running"),
        (("retry", "--failed"), "Nothing to retry."),
    ],
)
async def test_where_nothing_is_a_sentence_says_so(database: str, command: tuple[str, ...], sentence: str) -> None:
    ran = await queued_tasks(*command, database=database)
    assert (ran.code, sentence in ran.out) == (0, True)


# ---- health


async def test_check_is_fine_while_a_server_takes_tasks(database: str, rows: Rows) -> None:
    await rows.serve()
    assert (await queued_tasks("status", "--check", database=database)).code == 0


@pytest.mark.parametrize("state", ["starting", "draining", "drained", "blocked"])
async def test_check_is_unhealthy_while_no_server_takes_tasks(database: str, rows: Rows, state: str) -> None:
    await rows.serve(state=state)
    ran = await queued_tasks("status", "--check", database=database)
    assert (ran.code, ran.err) == (3, "queued-tasks: no server is taking tasks: see `queued-tasks servers`.\n")


async def test_check_is_unhealthy_without_a_database() -> None:
    ran = await queued_tasks("status", "--check", database=AWAY)
    assert (ran.code, ran.err.startswith("queued-tasks: PostgreSQL can't be reached")) == (3, True)


async def test_check_prints_its_document_when_the_database_is_away() -> None:
    document = (await queued_tasks("status", "--check", "--json", database=AWAY)).json
    assert (document["healthy"], document["database"]) == (False, None)


async def test_status_names_the_error_of_an_app_that_can_not_be_imported(database: str, rows: Rows) -> None:
    await rows.serve(state="blocked", details={"error": "Traceback ...\nModuleNotFoundError: No module named 'shop'"})
    ran = await queued_tasks("status", database=database)
    assert "web-1: ModuleNotFoundError: No module named 'shop'" in ran.out


@pytest.mark.parametrize("command", ["status", "servers"])
async def test_a_server_hides_no_error_of_another_one_of_its_name(database: str, rows: Rows, command: str) -> None:
    broken = await rows.serve(state="blocked", details={"error": "ModuleNotFoundError: No module named 'shop'"})
    await rows.serve()
    ran = await queued_tasks(command, database=database, COLUMNS="200")
    assert f"web-1 ({broken}): ModuleNotFoundError: No module named 'shop'" in ran.out


# ---- errors


async def test_an_unknown_task_is_an_error_without_a_traceback(database: str) -> None:
    id = uuid4()
    ran = await queued_tasks("tasks", "show", id, "--json", database=database)
    assert (ran.code, ran.out) == (1, "")
    assert ran.err.startswith(f"queued-tasks: No task {id} is there")
    assert len(ran.err.splitlines()) == 1


@pytest.mark.parametrize("command", READING)
async def test_a_database_that_is_away_is_an_error_with_a_cure(command: tuple[str, ...]) -> None:
    ran = await queued_tasks(*command, database=AWAY)
    assert (ran.code, ran.out, "is QUEUE_DATABASE_URL right?" in ran.err) == (1, "", True)


async def test_a_database_without_the_schema_is_an_error_with_a_cure(empty_database: str) -> None:
    ran = await queued_tasks("stats", database=empty_database)
    assert (ran.code, "run `queued-tasks migrate`" in ran.err) == (1, True)


@pytest.mark.parametrize(
    "url", ["mysql://somebody:hunter2@host/name", "host=here password=hunter2", "postgresql://u:hun#ter2@host:port/x"]
)
async def test_a_malformed_url_is_an_error_that_keeps_the_password(url: str) -> None:
    ran = await queued_tasks("stats", database=url)
    assert (ran.code, "QUEUE_DATABASE_URL" in ran.err, "ter2" in ran.err) == (1, True, False)


async def test_the_url_of_sqlalchemy_is_understood(database: str) -> None:
    url = database.replace("postgresql://", "postgresql+asyncpg://", 1)
    assert (await queued_tasks("stats", database=url)).code == 0


async def test_a_malformed_setting_is_an_error_that_names_it(database: str) -> None:
    ran = await queued_tasks("stats", database=database, QUEUE_LEASE_TTL="soon")
    assert (ran.code, "QUEUE_LEASE_TTL is malformed" in ran.err) == (1, True)


@pytest.mark.parametrize(
    "command",
    [
        ("nonsense",),
        ("tasks", "show", "not-an-id"),
        ("tasks", "list", "--state", "asleep"),
        ("tasks", "list", "--limit", "0"),
        ("retry",),
        ("retry", str(uuid4()), "--failed"),
        ("start", "--workers", "0"),
    ],
)
async def test_wrong_usage_ends_with_2(database: str, command: tuple[str, ...]) -> None:
    ran = await queued_tasks(*command, database=database)
    assert (ran.code, ran.out, "Usage: queued-tasks" in ran.err) == (2, "", True)


async def test_serving_without_an_app_is_an_error_with_a_cure(database: str, tmp_path: Path) -> None:
    ran = await queued_tasks("serve", database=database, cwd=tmp_path)
    assert (ran.code, "add --app module:attribute" in ran.err) == (2, True)


# ---- migrate


async def test_migrate_makes_the_schema_and_then_finds_nothing_to_do(empty_database: str) -> None:
    first = await queued_tasks("migrate", database=empty_database)
    second = await queued_tasks("migrate", database=empty_database)
    assert ("is now at migration" in first.out, "is up to date" in second.out) == (True, True)


async def test_the_printed_sql_makes_a_schema_that_needs_no_migration(empty_database: str) -> None:
    script = await queued_tasks("migrate", "--sql", database=AWAY)
    async with connected(empty_database) as connection:
        await connection.execute(script.out)
    assert "is up to date" in (await queued_tasks("migrate", database=empty_database)).out


# ---- the command itself


async def test_the_version_is_printed() -> None:
    assert (await queued_tasks("--version")).out.startswith("queued-tasks ")


@pytest.mark.parametrize("module", ["asyncpg", "fastapi", "uvicorn", "pydantic"])
def test_help_imports_nothing_heavy(module: str) -> None:
    code = f"import sys; import queued_tasks.integrations.cli.main; sys.exit({module!r} in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
