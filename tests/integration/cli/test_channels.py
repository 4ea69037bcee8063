"""`queued-tasks channels`: what operators see and do."""

from __future__ import annotations

import json

import pytest

from queued_tasks import QueuedTasks
from tests.apps import work
from tests.command import queued_tasks
from tests.databases import connected


async def rows(database: str) -> list[dict[str, object]]:
    ran = await queued_tasks("channels", "--json", database=database)
    assert (ran.code, ran.err) == (0, "")
    found: list[dict[str, object]] = json.loads(ran.out)
    return found


async def test_channels_show_their_limits_and_what_waits(database: str) -> None:
    async with QueuedTasks.connect(database) as tasks:
        for _ in range(3):
            tasks.add_task(work.add, 1, 2, channel="mail")
    ran = await queued_tasks("channels", "set", "mail", "10/key:2@100/min", database=database)
    assert (ran.code, ran.out) == (0, "mail: 10/key:2@100/min\n")
    assert await rows(database) == [
        {
            "name": "mail",
            "cap": 10,
            "per_server": False,
            "key_cap": 2,
            "rate": "100/min",
            "running": 0,
            "waiting": 3,
            "paused": False,
        }
    ]
    shown = await queued_tasks("channels", database=database)
    assert shown.out.split("\n")[1].split() == ["mail", "10", "2", "100/min", "0", "3", "open"]


async def test_without_channels_a_sentence_says_how_they_come(database: str) -> None:
    assert await rows(database) == []
    assert "add_task" in (await queued_tasks("channels", database=database)).out


async def test_a_paused_channel_keeps_its_limits(database: str) -> None:
    await queued_tasks("channels", "set", "mail", "6", database=database)
    assert (await queued_tasks("channels", "pause", "mail", database=database)).code == 0
    assert [(row["cap"], row["paused"]) for row in await rows(database)] == [(6, True)]
    await queued_tasks("channels", "set", "mail", "7", database=database)
    assert [(row["cap"], row["paused"]) for row in await rows(database)] == [(7, True)]
    await queued_tasks("channels", "resume", "mail", database=database)
    assert [(row["cap"], row["paused"]) for row in await rows(database)] == [(7, False)]


@pytest.mark.parametrize("how", [("pause", "mail"), ("set", "mail", "0")])
async def test_what_was_removed_from_a_paused_channel_waits_no_more(database: str, how: tuple[str, ...]) -> None:
    await queued_tasks("channels", *how, database=database)
    async with QueuedTasks.connect(database) as tasks, connected(database) as connection:
        refs = [tasks.add_task(work.add, 1, 2, channel=channel) for channel in ("mail", "mail", "mail", "other")]
        await refs[0].cancel()
        await refs[1].cancel()
        await connection.execute("select queued_tasks.remove_tasks(array[$1::uuid])", refs[1].id)
    assert [(row["name"], row["waiting"]) for row in await rows(database)] == [("mail", 1), ("other", 1)]


async def test_a_cap_of_0_is_a_pause_that_resume_ends(database: str) -> None:
    await queued_tasks("channels", "set", "mail", "0", database=database)
    assert [row["paused"] for row in await rows(database)] == [True]
    await queued_tasks("channels", "resume", "mail", database=database)
    assert await rows(database) == []


@pytest.mark.parametrize("limits", ["many", "3@5", "3/key:0"])
async def test_limits_that_cannot_be_read_are_wrong_usage_and_change_nothing(database: str, limits: str) -> None:
    ran = await queued_tasks("channels", "set", "mail", limits, database=database)
    assert ran.code == 2
    assert limits in ran.err
    assert await rows(database) == []
