"""`queued-tasks scheduler`: what operators see and do."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from queued_tasks.runtime.store.link import Link
from queued_tasks.runtime.store.schedules import Declaration, ScheduleStore
from tests.command import Ran, queued_tasks
from tests.databases import connected

APP = '''
from datetime import date
from queued_tasks import option, scheduled_task

print("imported")

@scheduled_task(cron="0 8 * * *", timezone="Europe/Berlin", channel="mail", priority=3)
@option("--date", type=str, default=None, help="The day to look at.")
@option("--dry", is_flag=True)
async def notify_birthday(date: str | None = None, dry: bool = False) -> None:
    """Wish people well."""

@scheduled_task(cron="*/5 * * * *", name="sweep")
@option("--day")
def sweep(day: date = date(2026, 1, 1)) -> None: ...

app = object()
'''


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The folder of an application, in which commands find it by themselves."""
    (tmp_path / "main.py").write_text(APP)
    return tmp_path


@pytest.fixture
async def store(database: str) -> AsyncIterator[ScheduleStore]:
    """What servers would have written."""
    link = Link(database, "queued_tasks", name="test")
    yield ScheduleStore(link)
    await link.close()


async def run(folder: Path, database: str, *line: str) -> Ran:
    return await queued_tasks("scheduler", "run", *line, database=database, cwd=folder)


async def stored(database: str, ran: Ran) -> dict[str, object]:
    """The task whose id a command printed."""
    async with connected(database) as connection:
        row = await connection.fetchrow("select * from queued_tasks.task where id = $1", ran.out.strip())
        assert row
        return dict(row)


async def test_a_schedule_row_has_the_documented_fields(database: str, store: ScheduleStore) -> None:
    await store.declare([Declaration("nightly", "0 3 * * *", "UTC", "app:report")], newly=True)
    ran = await queued_tasks("scheduler", "list", "--json", database=database)
    (row,) = ran.json
    assert row == {
        "name": "nightly",
        "cron": "0 3 * * *",
        "timezone": "UTC",
        "next_at": row["next_at"],
        "paused": False,
    }


async def test_the_next_time_is_told_in_the_zone_of_the_schedule(database: str, store: ScheduleStore) -> None:
    await store.declare([Declaration("nightly", "0 3 * * *", "Asia/Tokyo", "app:report")], newly=True)
    (row,) = (await queued_tasks("scheduler", "list", "--json", database=database)).json
    due = datetime.fromisoformat(row["next_at"])
    assert (due.hour, due.utcoffset()) == (3, timedelta(hours=9))


async def test_what_an_application_declares_is_listed_before_any_server_has_started(
    database: str, folder: Path
) -> None:
    ran = await queued_tasks("scheduler", "list", "--json", database=database, cwd=folder)
    assert [(row["name"], row["timezone"]) for row in ran.json] == [
        ("notify-birthday", "Europe/Berlin"),
        ("sweep", "UTC"),
    ]


async def test_an_application_that_can_not_be_imported_does_not_hide_what_servers_know(
    database: str, folder: Path, store: ScheduleStore
) -> None:
    await store.declare([Declaration("nightly", "0 3 * * *", "UTC", "app:report")], newly=True)
    (folder / "main.py").write_text("import nothing_like_this")
    ran = await queued_tasks("scheduler", "list", "--json", database=database, cwd=folder)
    assert ([row["name"] for row in ran.json], "nothing_like_this" in ran.err) == (["nightly"], True)


async def test_where_there_are_no_schedules_a_sentence_says_so(database: str) -> None:
    ran = await queued_tasks("scheduler", "list", database=database)
    assert (ran.code, ran.out.startswith("No schedules.")) == (0, True)


async def test_a_run_prints_the_id_of_its_task(database: str, folder: Path) -> None:
    ran = await run(folder, database, "notify-birthday")
    task = await stored(database, ran)
    assert (task["function"], task["channel"], task["priority"]) == ("main:notify_birthday", "mail", 3)


async def test_a_run_takes_the_options_that_the_function_declares(database: str, folder: Path) -> None:
    ran = await run(folder, database, "notify-birthday", "--date", "2026-01-01", "--dry")
    task = await stored(database, ran)
    assert json.loads(str(task["kwargs"])) == {"date": "2026-01-01", "dry": True}


async def test_an_option_becomes_what_the_function_annotates(database: str, folder: Path) -> None:
    ran = await run(folder, database, "sweep", "--day=2026-02-03")
    assert json.loads(str((await stored(database, ran))["kwargs"])) == {"day": "2026-02-03"}


async def test_the_app_may_be_named_after_the_schedule(database: str, folder: Path) -> None:
    ran = await queued_tasks(
        *("scheduler", "run", "sweep", "--app", "main:app", "--day", "2026-02-03", "--app-dir", folder),
        database=database,
    )
    assert (await stored(database, ran))["function"] == "main:sweep"


async def test_the_help_of_a_schedule_shows_its_options(database: str, folder: Path) -> None:
    ran = await run(folder, database, "notify-birthday", "--help")
    assert (ran.code, "Wish people well." in ran.out, "The day to look at." in ran.out) == (0, True, True)


@pytest.mark.parametrize(
    ("line", "error"),
    [
        (("notify-birthday", "--day", "2026-01-01"), "No such option"),
        (("notify-birthday", "--date"), "requires an argument"),
        (("notify-birthday", "2026-01-01"), "unexpected extra argument"),
        ((), "Missing argument"),
    ],
)
async def test_a_line_that_the_function_does_not_declare_is_wrong_usage(
    database: str, folder: Path, line: tuple[str, ...], error: str
) -> None:
    ran = await run(folder, database, *line)
    assert (ran.code, ran.out, error in ran.err) == (2, "", True)


async def test_an_unknown_schedule_is_an_error_that_names_the_known(database: str, folder: Path) -> None:
    ran = await run(folder, database, "birthdays")
    assert (ran.code, "no schedule 'birthdays', but notify-birthday, sweep." in ran.err) == (1, True)


async def test_a_run_without_an_app_is_an_error_with_a_cure(database: str, tmp_path: Path) -> None:
    ran = await run(tmp_path, database, "birthdays")
    assert (ran.code, "add --app module:attribute" in ran.err) == (1, True)


async def test_a_bad_expression_is_told_with_the_function(database: str, folder: Path) -> None:
    (folder / "main.py").write_text(APP.replace("0 8 * * *", "0 25 * * *"))
    ran = await run(folder, database, "sweep")
    assert (ran.code, "@scheduled_task on main.notify_birthday: cron is '0 25 * * *': Bad hour" in ran.err) == (1, True)


async def test_a_paused_schedule_has_no_next_time(database: str, store: ScheduleStore) -> None:
    await store.declare([Declaration("nightly", "0 3 * * *", "UTC", "app:report")], newly=True)
    ran = await queued_tasks("scheduler", "pause", "nightly", database=database)
    (row,) = (await queued_tasks("scheduler", "list", "--json", database=database)).json
    assert (ran.code, row["paused"], row["next_at"]) == (0, True, None)


async def test_a_resumed_schedule_goes_on(database: str, store: ScheduleStore) -> None:
    await store.declare([Declaration("nightly", "0 3 * * *", "UTC", "app:report")], newly=True)
    await queued_tasks("scheduler", "pause", "nightly", database=database)
    await queued_tasks("scheduler", "resume", "nightly", database=database)
    (row,) = await store.look()
    assert not row.paused


async def test_pausing_what_nobody_knows_is_an_error(database: str) -> None:
    ran = await queued_tasks("scheduler", "pause", "nightly", database=database)
    assert (ran.code, "no schedule 'nightly', nor any other" in ran.err) == (1, True)
