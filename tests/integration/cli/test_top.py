"""What `queued-tasks top` shows: live on a terminal of any size, once elsewhere, and as a document."""

from __future__ import annotations

from io import StringIO

import pytest
from rich.console import Console

from queued_tasks import Settings
from queued_tasks.integrations.cli.top import look_at
from queued_tasks.integrations.cli.top_screen import draw, share
from queued_tasks.runtime.store.link import Link
from tests.command import Rows, queued_tasks
from tests.terminal import on_terminal

FIELDS = [
    *("at", "tasks", "oldest_waiting_seconds", "claimed_per_minute", "settled_per_minute"),
    *("servers", "channels", "running", "failures"),
]


async def fill(rows: Rows, *, running: int = 1, failed: int = 1) -> None:
    server = await rows.serve("web-1", details={"settled_per_minute": 60, "claimed_per_minute": 90})
    for _ in range(failed):
        await rows.add("app:send_mail")
        await rows.fail(server)
    for _ in range(running):
        await rows.add("app:build_report", channel="reports")
        await rows.run(server, None)


async def test_the_document_is_all_that_json_prints(database: str, rows: Rows) -> None:
    await fill(rows)
    ran = await queued_tasks("top", "--json", database=database)
    assert (ran.code, ran.err, list(ran.json)) == (0, "", FIELDS)
    assert (ran.json["settled_per_minute"], ran.json["tasks"]["doing"]) == (60, 1)
    assert [(each["name"], each["server"]) for each in ran.json["running"]] == [("build_report", "web-1")]
    assert [each["exception_name"] for each in ran.json["failures"]] == ["ValueError"]
    assert {each["name"] for each in ran.json["channels"]} == {"default", "reports"}


async def test_the_rates_of_servers_that_are_gone_do_not_count(database: str, rows: Rows) -> None:
    await rows.leave(await rows.serve(details={"settled_per_minute": 60}))
    assert (await queued_tasks("top", "--json", database=database)).json["settled_per_minute"] == 0


async def test_the_longest_running_come_first_and_the_last_failures(database: str, rows: Rows) -> None:
    await fill(rows, running=3, failed=3)
    found = (await queued_tasks("top", "--json", database=database)).json
    ages = [each["seconds"] for each in found["running"]]
    assert ages == sorted(ages, reverse=True)
    ended = [each["seconds_ago"] for each in found["failures"]]
    assert ended == sorted(ended)


async def test_without_a_terminal_it_prints_once(database: str, rows: Rows) -> None:
    await fill(rows)
    ran = await queued_tasks("top", database=database)
    assert (ran.code, ran.err, ran.out.count("Queued Tasks")) == (0, "", 1)
    for seen in ("web-1", "reports", "build_report", "ValueError: no such address"):
        assert seen in ran.out


async def test_where_nothing_is_it_says_so(database: str) -> None:
    ran = await queued_tasks("top", database=database)
    assert ran.code == 0
    for seen in ("No server takes tasks", "No servers.", "Nothing runs.", "Nothing has failed."):
        assert seen in ran.out


@pytest.mark.parametrize("keys", ["q", "\x03"])
async def test_it_goes_on_until_q_or_ctrl_c(database: str, rows: Rows, keys: str) -> None:
    await fill(rows)
    async with on_terminal("top", database=database) as terminal:
        before = terminal.modes
        await terminal.shows("build_report")
        await rows.add("app:another")
        await rows.run(await rows.serve("web-2"), None)
        await terminal.shows("another")
        terminal.type(keys)
        assert await terminal.exited() == 0
        assert terminal.modes == before


@pytest.mark.parametrize(("width", "height"), [(80, 24), (120, 40), (200, 60), (80, 15)])
async def test_it_fits_the_terminal(database: str, rows: Rows, width: int, height: int) -> None:
    await fill(rows, running=50, failed=30)
    for number in range(12):
        await rows.serve(f"server-with-a-long-name-{number}")
    settings, link = Settings(database_url=database), Link(database, "queued_tasks", name="test")
    try:
        picture = draw(await look_at(link, settings), width=width, height=height, lease_ttl=settings.lease_ttl)
    finally:
        await link.close()
    shown = StringIO()
    Console(width=width, file=shown).print(picture)
    lines = shown.getvalue().splitlines()
    assert len(lines) <= height
    assert max(map(len, lines)) <= width
    assert lines[-1].startswith("q ends. Not shown:")


def test_the_room_is_shared_and_what_one_part_leaves_goes_to_the_others() -> None:
    assert share(12, [20, 1, 20, 20]) == [4, 1, 4, 3]
    assert share(100, [2, 1, 5, 3]) == [2, 1, 5, 3]
    assert share(0, [9, 9]) == [1, 1]
