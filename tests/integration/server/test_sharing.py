"""Servers share what is new by their free slots, whoever woke first."""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

from queued_tasks import QueuedTasks, TaskRef, TaskSpec
from tests.apps import trials
from tests.servers import Rows, running_server
from tests.waiting import wait_until

SECONDS = 2.0


async def meet(rows: Rows, servers: int) -> None:
    """Wait until each server has seen the room of the others: two beats."""
    seen = await rows.value("select min(beat_at) from queued_tasks.heartbeat")

    async def two_beats_later() -> bool:
        count = await rows.value(
            "select count(*) from queued_tasks.heartbeat "
            "where beat_at > $1::timestamptz + interval '4 seconds' and state = 'running'",
            seen,
        )
        return bool(count == servers)

    await wait_until(two_beats_later, deadline=60)


def task(folder: Path) -> TaskSpec:
    return TaskSpec(trials.work, (str(folder / "ledger"), SECONDS))


async def over(rows: Rows) -> None:
    """Wait until nothing runs, and the servers have seen that of each other."""
    await wait_until(lambda: _is_over(rows), deadline=60)
    await meet(rows, 2)


async def _is_over(rows: Rows) -> bool:
    return not await rows.left()


async def takers(rows: Rows, refs: Sequence[TaskRef]) -> Counter[str]:
    """How many of these tasks each server has taken, once all are."""
    query = (
        "select s.name from queued_tasks.running r join queued_tasks.server s on s.id = r.server where r.id = any($1)"
    )
    ids = [ref.id for ref in refs]

    async def all_run() -> bool:
        return bool(await rows.value(f"select count(*) = $2 from ({query}) q", ids, len(ids)))

    await wait_until(all_run, deadline=30)
    return Counter(await rows.column(query, ids))


ROUNDS = 6  # a share is an offer for a moment: on a busy machine the other one may come too late for it


async def share(rows: Rows, add: Callable[[], Awaitable[Sequence[TaskRef]]], name: str) -> None:
    """Add tasks until the server of this name takes its part of them: about five."""
    await meet(rows, 2)
    for _ in range(ROUNDS):
        taken = await takers(rows, await add())
        if 4 <= taken[name] <= 6:
            return
        await over(rows)
    raise AssertionError(f"never shared: {taken}")


async def test_ten_long_tasks_in_one_batch_are_five_for_each_of_two(
    database: str, tasks: QueuedTasks, rows: Rows, tmp_path: Path
) -> None:
    async with (
        running_server(database, name="one", concurrency=10),
        running_server(database, name="two", concurrency=10),
    ):
        await share(rows, lambda: tasks.add_tasks([task(tmp_path) for _ in range(10)]), "one")


async def test_ten_single_enqueues_are_shared_as_well(
    database: str, tasks: QueuedTasks, rows: Rows, tmp_path: Path
) -> None:
    async def one_by_one() -> list[TaskRef]:
        return [(await tasks.add_tasks([task(tmp_path)]))[0] for _ in range(10)]

    async with (
        running_server(database, name="one", concurrency=10),
        running_server(database, name="two", concurrency=10),
    ):
        await share(rows, one_by_one, "one")


async def test_twice_the_slots_take_twice_as_much(
    database: str, tasks: QueuedTasks, rows: Rows, tmp_path: Path
) -> None:
    async with (
        running_server(database, name="large", concurrency=20),
        running_server(database, name="small", concurrency=10),
    ):
        await share(rows, lambda: tasks.add_tasks([task(tmp_path) for _ in range(15)]), "small")


async def test_a_big_backlog_fills_all(database: str, tasks: QueuedTasks, rows: Rows, tmp_path: Path) -> None:
    async with (
        running_server(database, name="one", concurrency=10),
        running_server(database, name="two", concurrency=10),
    ):
        await meet(rows, 2)
        await tasks.add_tasks([task(tmp_path) for _ in range(60)])

        async def all_slots_are_busy() -> bool:
            return bool(await rows.value("select count(*) >= 20 from queued_tasks.running"))

        await wait_until(all_slots_are_busy, deadline=30)
