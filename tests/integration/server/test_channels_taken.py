"""Channels that servers take, or leave to others, and what shares one."""

from __future__ import annotations

import pytest

from queued_tasks import QueuedTasks, TaskSpec
from tests.apps import work
from tests.command import queued_tasks
from tests.servers import running_server

LIMIT = 60  # seconds
EITHER = [("--channels", "gpu,video"), ("--exclude-channels", "mail")]


@pytest.mark.parametrize("option", EITHER)
async def test_a_server_leaves_channels_that_it_does_not_take(
    database: str, tasks: QueuedTasks, option: tuple[str, str]
) -> None:
    async with running_server(database, options=option):
        left = tasks.add_task(work.add, 1, 2, channel="mail")
        taken = tasks.add_task(work.add, 3, 4, channel="gpu")
        assert await taken.wait(LIMIT) == 7
        assert await left.get_state() == "enqueued"
        found = await queued_tasks("why", left.id, "--json", database=database)
        assert found.json["reason"] == "channel_not_taken"
        async with running_server(database, name="other"):
            assert await left.wait(LIMIT) == 3


@pytest.mark.parametrize(("option", "said"), [(EITHER[0], "only gpu, video"), (EITHER[1], "all channels but mail")])
async def test_it_says_which_channels_it_takes(database: str, option: tuple[str, str], said: str) -> None:
    async with running_server(database, options=option):
        assert f"server takes {said}" in (await queued_tasks("servers", database=database)).out


@pytest.mark.usefixtures("server")
async def test_a_plain_function_gets_its_turn_in_a_channel_that_is_always_full(
    database: str, tasks: QueuedTasks
) -> None:
    await queued_tasks("channels", "set", "mail", "1", database=database)
    await tasks.add_tasks([TaskSpec(work.sleep, (0.1,), channel="mail") for _ in range(1_000)])
    plain = tasks.add_task(work.add_plainly, 1, 2, channel="mail")
    assert await plain.wait(LIMIT) == 3
    assert await tasks.get_pending_tasks_count() > 100
