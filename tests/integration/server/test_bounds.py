"""What a server costs the database."""

from __future__ import annotations

import pytest

from queued_tasks import QueuedTasks
from queued_tasks.actors.keeper import BEAT_EVERY
from tests.apps import work
from tests.proxy import proxied
from tests.servers import Rows, running_server
from tests.waiting import wait_until

MOST_CONNECTIONS = 4
BEATS = 4
OTHERS = """
select count(*) from pg_stat_activity
 where datname = current_database() and pid <> pg_backend_pid() and backend_type = 'client backend'
"""
UPKEEP = 4  # statements that come once in a while


@pytest.mark.parametrize("notify", ["true", "false"])
async def test_a_server_holds_four_connections_however_much_its_tasks_ask(
    database: str, rows: Rows, notify: str
) -> None:
    async with QueuedTasks.connect(database) as tasks:
        for _ in range(100):
            tasks.add_task(work.ask_often, 5)
            tasks.add_task(work.ask_child, 1, 2)
            tasks.add_task(work.add_plainly, 1, 2)
    seen: list[int] = []

    async def is_done() -> bool:
        seen.append(await rows.value(OTHERS))
        return not await rows.left()

    async with running_server(database, workers=4, use_postgresql_notify=notify, wait=False):
        await wait_until(is_done, deadline=60)
    assert await rows.states() == {"done": 400}
    assert max(seen) <= MOST_CONNECTIONS


async def test_an_idle_server_asks_the_database_less_than_twice_a_second(database: str, rows: Rows) -> None:
    async with proxied(database) as (proxy, dsn), running_server(dsn):
        async with QueuedTasks.connect(database) as tasks:
            await tasks.add_task(work.add, 1, 1).wait(30)
            await tasks.add_task(work.add_plainly, 1, 1).wait(30)
        await _beats(1, rows)
        before = proxy.asked
        await _beats(BEATS, rows)
        assert proxy.asked - before <= 2 * BEAT_EVERY * BEATS + UPKEEP


async def _beats(count: int, rows: Rows) -> None:
    """Wait for so many beats."""
    seen = set()

    async def enough() -> bool:
        seen.add(await rows.value("select max(beat_at) from queued_tasks.heartbeat"))
        return len(seen) > count

    await wait_until(enough)
