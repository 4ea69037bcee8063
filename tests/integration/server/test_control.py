"""Servers that are drained, resumed and stopped from anywhere."""

from __future__ import annotations

import asyncio
import signal
from importlib.metadata import version
from pathlib import Path
from typing import Any

import psutil

from queued_tasks import QueuedTasks, TaskRef, TaskState
from tests.apps import work
from tests.command import Ran, queued_tasks
from tests.command import started as started_command
from tests.servers import Rows, Server, go, held_tasks, running_server, started
from tests.waiting import wait_until

LIMIT = 30  # seconds
VERSION = version("queued-tasks")


async def servers(database: str, *arguments: object) -> Ran:
    """`queued-tasks servers` with these arguments, which has to succeed."""
    ran = await queued_tasks("servers", *arguments, database=database)
    assert ran.code == 0, ran.err
    return ran


async def drained(database: str, name: object = "server") -> Ran:
    """Drain, and wait for it."""
    async with asyncio.timeout(LIMIT):
        return await servers(database, "drain", name, "--wait", "--yes")


async def reaches(server: Server, state: str) -> None:
    """Wait until a server's heartbeat says so."""

    async def says_so() -> bool:
        return await server.state() == state

    await wait_until(says_so)


async def held(tasks: QueuedTasks, folder: Path) -> TaskRef:
    """A task that runs until `go`, running."""
    (ref,) = await held_tasks(tasks, folder, 1)
    await wait_until(lambda: started(folder) == 1)
    return ref


# ---- drain and resume


async def test_what_runs_finishes_while_its_server_drains(
    database: str, tasks: QueuedTasks, server: Server, tmp_path: Path
) -> None:
    ref = await held(tasks, tmp_path)
    await servers(database, "drain", "server", "--yes")
    await reaches(server, "draining")
    go(tmp_path)
    await ref.wait(LIMIT)
    await reaches(server, "drained")


async def test_a_drained_server_takes_nothing_until_it_is_resumed(
    database: str, tasks: QueuedTasks, server: Server
) -> None:
    await drained(database)
    ref = tasks.add_task(work.add, 1, 2)
    await ref
    beat = await server.heartbeat()

    async def has_beaten_since() -> bool:
        now = await server.heartbeat()
        return bool(beat and now and now["beat_at"] > beat["beat_at"])

    await wait_until(has_beaten_since)
    assert await ref.get_state() is TaskState.ENQUEUED
    await servers(database, "resume", "server")
    await ref.wait(LIMIT)


async def test_what_has_not_started_is_handed_back(
    database: str, tasks: QueuedTasks, rows: Rows, tmp_path: Path
) -> None:
    refs = await held_tasks(tasks, tmp_path, 2)
    for ref in refs:  # of two such tasks a worker starts one at a time
        await _let_it_have_crashed_twice(rows, ref)
    async with running_server(database):
        await wait_until(lambda: started(tmp_path) == 1)
        await servers(database, "drain", "server", "--yes")

        async def one_is_back() -> bool:
            return await rows.states() == {"doing": 1, "enqueued": 1}

        await wait_until(one_is_back)


async def test_waiting_for_a_drain_tells_what_still_runs(
    database: str, tasks: QueuedTasks, server: Server, tmp_path: Path
) -> None:
    ref = await held(tasks, tmp_path)
    async with started_command(
        "servers", "drain", "server", "--wait", "-y", database=database, cwd=tmp_path
    ) as running:
        assert running.stdout
        async with asyncio.timeout(LIMIT):
            said = [await running.stdout.readline() for _ in range(2)]
            go(tmp_path)
            said += [line async for line in running.stdout]
            code = await running.wait()
    assert b"".join(said[:2]).decode() == (
        f"server finishes what runs and takes no more tasks.\n1 task still runs: hold {ref.id}.\n"
    )
    assert (said[-1], code) == (b"server is drained.\n", 0)


async def test_a_drain_is_heard_without_notifications(database: str) -> None:
    async with running_server(database, use_postgresql_notify=False):
        assert (await drained(database)).out.endswith("server is drained.\n")


async def test_a_drain_asks_and_takes_a_no(database: str, server: Server) -> None:
    ran = await queued_tasks("servers", "drain", "server", database=database, answer="n\n")
    assert (ran.code, "Drain server?" in ran.err, await server.state()) == (1, True, "running")


async def test_a_drained_server_that_was_given_up_starts_afresh_as_drained(
    database: str, tasks: QueuedTasks, rows: Rows, server: Server
) -> None:
    await drained(database)
    before = await server.heartbeat()
    assert before
    await rows.value("delete from queued_tasks.heartbeat")

    async def is_drained_again() -> bool:
        now = await server.heartbeat()
        return bool(now and now["server"] != before["server"] and now["workers"] and now["state"] == "drained")

    await tasks.add_task_async(work.add, 1, 2)
    await wait_until(is_drained_again)
    assert await rows.states() == {"enqueued": 1}


async def test_a_drained_server_is_not_ready(database: str, tmp_path: Path) -> None:
    file = tmp_path / "health"
    async with running_server(database, health_port=0, health_file=file) as server:
        await wait_until(file.exists)
        await drained(database)
        assert await server.probe("/readyz") == 503
        assert await server.probe("/livez") == 200
        assert (await queued_tasks("status", "--check", database=database)).code == 3
        file.unlink()
        await servers(database, "resume", "server")
        await wait_until(file.exists)
        assert await server.probe("/readyz") == 200
        assert (await queued_tasks("status", "--check", database=database)).code == 0


async def test_servers_notice_who_comes_and_who_goes(database: str, server: Server) -> None:
    async with running_server(database, name="other") as other:
        await wait_until(lambda: "server other (" in server.said)
        assert "with 1 other server: server" in other.said
        assert await other.stop() == 0
    await wait_until(lambda: ") has gone" in server.said)


async def test_a_server_tells_the_version_of_its_application(database: str, rows: Rows) -> None:
    async with running_server(database, app_version="2024.11"):
        assert await rows.value("select version from queued_tasks.server") == f"2024.11 (queued-tasks {VERSION})"


async def test_a_server_tells_what_it_has_done_and_what_it_takes(
    database: str, tasks: QueuedTasks, server: Server
) -> None:
    for _ in range(3):
        await tasks.add_task(work.add, 1, 1).wait(LIMIT)

    async def told() -> dict[str, Any]:
        (row,) = (await servers(database, "--json")).json
        return dict(row)

    async def tells() -> bool:
        row = await told()
        return (row["claimed_per_minute"], row["settled_per_minute"]) == (3, 3)

    await wait_until(tells)
    row = await told()
    assert row["memory"] > psutil.Process(server.pid).memory_info().rss  # that of the workers counts, too
    assert row["load"] >= 0


async def test_a_server_tells_its_slots_before_its_first_task(database: str, server: Server) -> None:
    async def tells_them() -> bool:
        heartbeat = await server.heartbeat()
        return bool(heartbeat and heartbeat["slots"] == 100)

    await wait_until(tells_them)


# ---- which servers


async def test_all_servers_of_a_name_are_drained_and_one_by_its_id(database: str) -> None:
    async with running_server(database) as first, running_server(database) as second:
        heartbeat = await first.heartbeat()
        assert heartbeat
        assert (await drained(database, heartbeat["server"])).out.endswith("server is drained.\n")
        assert await second.state() == "running"
        await drained(database)
        assert [await first.state(), await second.state()] == ["drained", "drained"]


async def test_an_unknown_name_is_answered_with_those_that_there_are(database: str, server: Server) -> None:
    for verb in ("drain", "resume", "stop"):
        ran = await queued_tasks("servers", verb, "sever", database=database)
        assert (ran.code, ran.err) == (1, "queued-tasks: no server is called 'sever'. There are: server.\n")


# ---- stop


async def test_a_stopped_server_leaves_with_exit_code_0(database: str, rows: Rows, server: Server) -> None:
    await servers(database, "stop", "server")
    assert await server.exited() == 0
    assert await rows.value("select end_reason from queued_tasks.server") == "stopped"


async def test_a_server_that_was_told_to_stop_lets_what_runs_finish_even_after_a_sigterm(
    database: str, tasks: QueuedTasks, server: Server, tmp_path: Path
) -> None:
    ref = await held(tasks, tmp_path)
    await servers(database, "stop", "server")
    await wait_until(lambda: "draining: what runs may finish within" in server.said)
    server.signal(signal.SIGTERM)
    go(tmp_path)
    assert await server.exited() == 0
    assert await ref.get_state() is TaskState.DONE


async def test_a_drained_server_can_be_stopped(database: str, server: Server) -> None:
    await drained(database)
    await servers(database, "stop", "server")
    assert await server.exited() == 0


async def test_a_server_that_leaves_can_not_be_resumed(
    database: str, tasks: QueuedTasks, server: Server, tmp_path: Path
) -> None:
    await held(tasks, tmp_path)
    await servers(database, "stop", "server")
    ran = await queued_tasks("servers", "resume", "server", database=database)
    assert (ran.code, "server is leaving" in ran.err) == (1, True)


# ---- scale


async def test_a_server_is_scaled_up_at_once_and_down_without_interrupting_anything(
    database: str, tasks: QueuedTasks, tmp_path: Path
) -> None:
    async with running_server(database, workers=1, concurrency=1) as server:
        refs = await held_tasks(tasks, tmp_path, 3)
        await wait_until(lambda: started(tmp_path) == 1)
        ran = await servers(database, "scale", "server", "--workers", 3)
        assert ran.out == "server goes to 3 workers, as with `start --workers 3`.\n"
        await wait_until(lambda: started(tmp_path) == 3)
        await servers(database, "scale", "server", "--workers", 1)
        go(tmp_path)
        for ref in refs:
            await ref.wait(LIMIT)
        await wait_until(lambda: _has_workers(server, 1))
    assert started(tmp_path) == 3


async def test_a_server_that_starts_afresh_keeps_its_scale(
    database: str, tasks: QueuedTasks, rows: Rows, tmp_path: Path
) -> None:
    async with running_server(database, workers=1, concurrency=1) as server:
        await servers(database, "scale", "server", "--workers", 2)
        await rows.value("delete from queued_tasks.heartbeat")
        await wait_until(lambda: "the server starts afresh" in server.said)
        await held_tasks(tasks, tmp_path, 2)
        await wait_until(lambda: started(tmp_path) == 2)


async def test_no_server_is_scaled_to_nothing(database: str) -> None:
    ran = await queued_tasks("servers", "scale", "server", "--workers", 0, database=database)
    assert ran.code == 2


async def _has_workers(server: Server, count: int) -> bool:
    heartbeat = await server.heartbeat()
    return bool(heartbeat and heartbeat["workers"] == count)


async def _let_it_have_crashed_twice(rows: Rows, ref: TaskRef) -> None:
    await rows.value("update queued_tasks.bundle set attempt = 3 where $1 = any (ids)", ref.id)
    await rows.value(
        "insert into queued_tasks.attempt (id, attempt, outcome, server, started_at, ended_at) "
        "select $1, n, 'crashed', gen_random_uuid(), now(), now() from generate_series(1, 2) n",
        ref.id,
    )
