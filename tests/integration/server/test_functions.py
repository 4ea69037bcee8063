"""Functions that a server can't run: their tasks are left to whoever can, and fail when nobody may."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import AsyncExitStack
from pathlib import Path
from textwrap import dedent
from uuid import UUID

import pytest

from queued_tasks import QueuedTasks
from queued_tasks.runtime.store.link import Link
from queued_tasks.runtime.store.tasks import TaskStore
from queued_tasks.runtime.task import Executor
from tests.servers import Rows, Server, running_server
from tests.store import new_task
from tests.waiting import wait_until

OLD = """
    async def old():
        return "old"
"""
NEW = f"""{OLD}
    async def new():
        return "new"

    def new_plainly():
        return "plain"
"""
BROKEN = """
    raise RuntimeError("the licence is missing")
"""
PARKED = "select count(*) from queued_tasks.ready where lane in (select id from queued_tasks.lane where function <> '')"

Version = Callable[[str], Path]


@pytest.fixture
def version(tmp_path: Path) -> Version:
    """The folder of an application with this code in its module `shop`."""

    def write(code: str) -> Path:
        folder = tmp_path / str(len([*tmp_path.iterdir()]))
        folder.mkdir()
        (folder / "shop.py").write_text(dedent(code))
        return folder

    return write


async def add(database: str, function: str, count: int = 1, executor: Executor = Executor.ASYNC) -> list[UUID]:
    """Tasks of a function that this process can't import."""
    tasks = [new_task(function=function, executor=executor) for _ in range(count)]
    link = Link(database, "queued_tasks", name="test")
    try:
        await TaskStore(link).add(tasks)
    finally:
        await link.close()
    return [task.id for task in tasks]


async def are_parked(rows: Rows, count: int) -> None:
    await wait_until(lambda: _equal(rows, PARKED, count))


async def _equal(rows: Rows, query: str, expected: object) -> bool:
    return bool(await rows.value(query) == expected)


async def end_of(rows: Rows, id: UUID) -> str:
    """The state, the result, and the error of a task that ends."""
    await wait_until(lambda: _equal(rows, f"select count(*) from queued_tasks.result where id = '{id}'", 1))
    return str(
        await rows.value(
            "select concat_ws(' ', state, result, exception_name, exception_message) "
            "from queued_tasks.result where id = $1",
            id,
        )
    )


async def claimed(server: Server) -> int:
    row = await server.heartbeat()
    assert row is not None
    return int(json.loads(row["details"])["claimed_per_minute"])


async def beats(server: Server, count: int) -> None:
    """Wait for so many beats of a server."""
    seen = set()

    async def enough() -> bool:
        row = await server.heartbeat()
        seen.add(row and row["beat_at"])
        return len(seen) > count

    await wait_until(enough)


async def test_what_only_the_new_version_knows_runs_there_and_nothing_fails(
    database: str, rows: Rows, version: Version
) -> None:
    async with AsyncExitStack() as stack:
        for name, code in (("old", OLD), ("new", NEW)):
            await stack.enter_async_context(
                running_server(database, app_dir=version(code), name=name, concurrency=5, workers=2)
            )
        for _ in range(20):
            await add(database, "shop:new", 10)
            await add(database, "shop:old", 5)
            await add(database, "shop:new_plainly", 2, Executor.SYNC)
        await wait_until(lambda: _equal(rows, "select count(*) from queued_tasks.result", 340), deadline=60)
        ran = await rows.value(
            "select json_object_agg(key, servers) from (select function || ' ' || r.state || ' ' || r.attempt as key, "
            "json_agg(distinct s.name order by s.name) as servers from queued_tasks.task t join queued_tasks.result r "
            "on r.id = t.id join queued_tasks.server s on s.id = r.server group by 1) x"
        )
    assert json.loads(ran).keys() == {"shop:new done 1", "shop:old done 1", "shop:new_plainly done 1"}
    assert json.loads(ran)["shop:new done 1"] == ["new"]
    assert json.loads(ran)["shop:new_plainly done 1"] == ["new"]


async def test_what_nobody_knows_yet_runs_when_a_server_comes_that_does(
    database: str, rows: Rows, version: Version
) -> None:
    async with running_server(database, app_dir=version(OLD), name="old"):
        ids = await add(database, "shop:new", 20)
        await are_parked(rows, 20)
        assert await rows.states() == {"enqueued": 20}
        async with running_server(database, app_dir=version(NEW), name="new"):
            await wait_until(lambda: _equal(rows, "select count(*) from queued_tasks.result", 20))
    assert [await end_of(rows, id) for id in ids] == ['done "new"'] * 20


async def test_what_a_server_can_not_run_is_claimed_by_it_once(database: str, rows: Rows, version: Version) -> None:
    async with (
        running_server(database, app_dir=version(OLD), name="first") as first,
        running_server(database, app_dir=version(OLD), name="second") as second,
    ):
        await add(database, "shop:new", 20)
        await are_parked(rows, 20)
        for server in (first, second):
            await beats(server, 3)
        assert await claimed(first) + await claimed(second) == 20


async def test_servers_say_why_they_leave_tasks_to_others(database: str, rows: Rows, version: Version) -> None:
    async with (
        running_server(database, app_dir=version(OLD), name="old") as old,
        running_server(database, app_dir=version(BROKEN), name="broken"),
    ):
        await add(database, "shop:new")
        await wait_until(lambda: _equal(rows, "select count(*) from queued_tasks.stance", 2))
        said = await rows.value(
            "select json_object_agg(s.name, x.kind || ' ' || x.reason) "
            "from queued_tasks.stance x join queued_tasks.server s on s.id = x.server"
        )
        assert "tasks of shop:new are left to other servers: module 'shop' has no 'new'" in old.said
    assert json.loads(said)["old"].startswith("unknown module 'shop' has no 'new' here: deploy the version")
    assert "RuntimeError: the licence is missing" in json.loads(said)["broken"]


@pytest.mark.parametrize("executor", [Executor.ASYNC, Executor.SYNC])
@pytest.mark.parametrize("function", ["os:system", "shop:Path", "shop:os.system", "not a reference"])
async def test_what_the_only_server_refuses_fails_at_once(
    database: str, rows: Rows, version: Version, function: str, executor: Executor
) -> None:
    async with running_server(database, app_dir=version("import os\nfrom pathlib import Path\n")):
        (id,) = await add(database, function, executor=executor)
        assert (await end_of(rows, id)).startswith("failed InvalidTask")


async def test_what_all_servers_refuse_fails_and_names_the_setting(database: str, rows: Rows, version: Version) -> None:
    async with AsyncExitStack() as stack:
        for name in "abc":
            await stack.enter_async_context(running_server(database, app_dir=version(OLD), name=name))
        ids = await add(database, "os:system", 10)
        ends = {await end_of(rows, id) for id in ids}
    (end,) = ends
    assert end.startswith("failed InvalidTask 'os:system' runs code of 'os'")
    assert end.endswith("add it to QUEUE_ALLOWED_MODULES")


async def test_what_another_server_may_run_runs_there(database: str, rows: Rows, version: Version) -> None:
    async with (
        running_server(database, app_dir=version(OLD), name="strict"),
        running_server(database, app_dir=version(OLD), name="lax", allowed_modules="textwrap"),
    ):
        ids = [id for _ in range(5) for id in await add(database, "textwrap:indent")]
        ends = [await end_of(rows, id) for id in ids]
    assert all(end.startswith("failed SerializationError") for end in ends)  # it was called, without its arguments


async def test_a_parked_task_can_be_cancelled(database: str, rows: Rows, tasks: QueuedTasks, version: Version) -> None:
    async with running_server(database, app_dir=version(OLD)):
        (id,) = await add(database, "shop:new")
        await are_parked(rows, 1)
        assert await tasks.cancel_task(id)
        async with running_server(database, app_dir=version(NEW), name="new"):
            await wait_until(lambda: _equal(rows, PARKED, 0))
    assert await rows.states() == {"cancelled": 1}
