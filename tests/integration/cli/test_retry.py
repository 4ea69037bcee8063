"""Clearing and retrying from the command line: what they take, and whom they ask first."""

from __future__ import annotations

from uuid import uuid4

from tests.command import Rows, queued_tasks


async def test_clear_asks_and_a_no_leaves_all_as_it_was(database: str, rows: Rows) -> None:
    await rows.add()
    ran = await queued_tasks("clear", database=database, answer="n\n")
    assert (ran.code, await count(database, "enqueued")) == (1, 1)


async def test_clear_with_nobody_to_answer_leaves_all_as_it_was(database: str, rows: Rows) -> None:
    await rows.add()
    ran = await queued_tasks("clear", database=database)
    assert (ran.code, "--yes" in ran.err, await count(database, "enqueued")) == (1, True, 1)


async def test_clear_deletes_after_a_yes(database: str, rows: Rows) -> None:
    await rows.add()
    ran = await queued_tasks("clear", database=database, answer="y\n")
    assert (ran.code, ran.out, await count(database, "enqueued")) == (0, "Deleted 1 task.\n", 0)


async def test_clear_deletes_only_what_matches(database: str, rows: Rows) -> None:
    await rows.add(name="old")
    await rows.add(name="new")
    await queued_tasks("clear", "--name", "old", "--yes", database=database)
    ran = await queued_tasks("tasks", "list", "--json", database=database)
    assert [task["name"] for task in ran.json] == ["new"]


async def test_clear_leaves_what_runs_and_what_ended(database: str, rows: Rows) -> None:
    server = await rows.serve()
    for _ in range(3):
        await rows.add()
    await rows.run(server)
    await rows.run(server, None)
    await queued_tasks("clear", "--yes", database=database)
    counts = (await queued_tasks("stats", "--json", database=database)).json
    assert (counts["enqueued"], counts["doing"], counts["done"]) == (0, 1, 1)


async def count(database: str, state: str) -> int:
    return int((await queued_tasks("stats", "--json", database=database)).json[state])


async def test_a_failed_task_is_retried_as_a_clone(database: str, rows: Rows) -> None:
    id = await rows.add(name="send")
    await rows.fail(await rows.serve())
    ran = await queued_tasks("tasks", "retry", id, database=database)
    clone = ran.out.split()[-1].rstrip(".")
    task = (await queued_tasks("tasks", "show", clone, "--json", database=database)).json
    assert (ran.code, task["name"], task["state"]) == (0, "send_retry", "enqueued")


async def test_a_task_that_is_under_way_is_not_retried(database: str, rows: Rows) -> None:
    id = await rows.add()
    ran = await queued_tasks("retry", id, database=database)
    assert (ran.code, ran.out, "enqueued" in ran.err) == (1, "", True)


async def test_an_id_that_can_not_be_retried_does_not_keep_the_others_from_it(database: str, rows: Rows) -> None:
    server = await rows.serve()
    failed = await rows.add()
    await rows.fail(server)
    ran = await queued_tasks("retry", uuid4(), failed, database=database)
    assert (ran.code, await count(database, "enqueued")) == (1, 1)


async def test_retrying_all_that_failed_asks_first(database: str, rows: Rows) -> None:
    server = await rows.serve()
    for _ in range(2):
        await rows.add()
        await rows.fail(server)
    ran = await queued_tasks("retry", "--failed", database=database, answer="n\n")
    assert (ran.code, "Retry 2 failed tasks?" in ran.err, await count(database, "enqueued")) == (1, True, 0)


async def test_retrying_all_that_failed_takes_only_what_matches(database: str, rows: Rows) -> None:
    server = await rows.serve()
    for name in ("wanted", "other"):
        await rows.add(name=name)
        await rows.fail(server)
    await queued_tasks("retry", "--failed", "--name", "wanted", "--yes", database=database)
    ran = await queued_tasks("tasks", "list", "--state", "enqueued", "--json", database=database)
    assert [task["name"] for task in ran.json] == ["wanted_retry"]
