"""PostgreSQL goes away and comes back: the server stays up, says so, loses nothing, and goes on by itself."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path

import pytest

from queued_tasks import QueuedTasks, TaskSpec
from queued_tasks.actors.claimer import MOST_UNRECORDED
from tests.apps import work
from tests.databases import connected, ensure_template, fresh_database, template_name
from tests.databases import running_server as running_postgres
from tests.proxy import proxied
from tests.servers import Rows, Server, go, held_tasks, marks, rows_of, running_server, started
from tests.waiting import wait_until

LIMIT = 60  # seconds


async def test_what_ends_during_an_outage_is_recorded_once_and_work_goes_on_by_itself(
    database: str, tasks: QueuedTasks, rows: Rows, tmp_path: Path
) -> None:
    async with proxied(database) as (proxy, dsn), running_server(dsn) as server:
        refs = await held_tasks(tasks, tmp_path, 5)
        await wait_until(lambda: started(tmp_path) == 5)
        proxy.cut()
        go(tmp_path)
        await wait_until(lambda: marks(tmp_path, "ended") == 5)
        later = tasks.add_task(work.add, 1, 1)
        await later
        await wait_until(lambda: "PostgreSQL is away" in server.said)
        await proxy.open()
        assert await later.wait(LIMIT) == 2
        for ref in refs:
            await ref.wait(LIMIT)
        assert await server.stop() == 0
    assert server.said.count("PostgreSQL is away") == 1
    assert started(tmp_path) == 5
    assert await rows.value("select count(*) from queued_tasks.attempt") == 0
    assert await rows.leases() == 0


async def test_probes_tell_an_outage_from_a_death(database: str) -> None:
    async with proxied(database) as (proxy, dsn), running_server(dsn, health_port=0) as server:
        assert await server.probe("/livez") == 200
        await wait_until(lambda: _answers(server, "/readyz", 200))
        proxy.cut()
        await wait_until(lambda: _answers(server, "/readyz", 503))
        assert await server.probe("/livez") == 200
        await proxy.open()
        await wait_until(lambda: _answers(server, "/readyz", 200))


async def test_a_server_that_finds_no_database_waits_for_it_and_says_so(database: str, tasks: QueuedTasks) -> None:
    async with proxied(database) as (proxy, dsn):
        proxy.cut()
        async with running_server(dsn, wait=False) as server:
            await wait_until(lambda: "waiting for PostgreSQL" in server.said)
            await proxy.open()
            assert await tasks.add_task(work.add, 1, 1).wait(LIMIT) == 2


async def test_a_server_that_waits_for_its_database_leaves_in_order(database: str) -> None:
    async with proxied(database) as (proxy, dsn):
        proxy.cut()
        async with running_server(dsn, wait=False) as server:
            await wait_until(lambda: "waiting for PostgreSQL" in server.said)
            assert await server.stop() == 0


async def test_a_server_can_be_told_to_leave_while_the_database_is_away(
    database: str, tasks: QueuedTasks, tmp_path: Path
) -> None:
    async with proxied(database) as (proxy, dsn):
        async with running_server(dsn, shutdown_grace=1) as server:
            refs = await held_tasks(tasks, tmp_path, 3)
            await wait_until(lambda: started(tmp_path) == 3)
            proxy.cut()
            await wait_until(lambda: "PostgreSQL is away" in server.said)
            assert await server.stop() == 0
        go(tmp_path)
        await proxy.open()
        async with running_server(database):
            for ref in refs:
                await ref.wait(LIMIT)


async def test_what_has_ended_is_recorded_before_a_server_leaves_if_the_database_is_back_in_time(
    database: str, tasks: QueuedTasks, rows: Rows, tmp_path: Path
) -> None:
    async with proxied(database) as (proxy, dsn), running_server(dsn) as server:
        refs = await held_tasks(tasks, tmp_path, 3)
        await wait_until(lambda: started(tmp_path) == 3)
        proxy.cut()
        await wait_until(lambda: "PostgreSQL is away" in server.said)
        server.signal(signal.SIGTERM)
        go(tmp_path)
        await wait_until(lambda: not server.workers())
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(4):
                await server.exited()
        await proxy.open()
        assert await server.exited() == 0
    assert [await ref.get_state() for ref in refs] == ["done"] * 3
    assert await rows.value("select count(*) from queued_tasks.attempt") == 0


async def test_cut_connections_are_opened_again_with_a_new_session_lock(
    database: str, tasks: QueuedTasks, rows: Rows
) -> None:
    async with running_server(database) as server:
        await wait_until(lambda: _has_lock(server))
        before = await server.heartbeat()
        await rows.value(
            "select count(pg_terminate_backend(pid)) from pg_stat_activity "
            "where application_name like 'queued-tasks server%' and datname = current_database()"
        )

        async def has_a_new_lock() -> bool:
            row = await server.heartbeat()
            return bool(before and row and row["lock_key"] not in (None, before["lock_key"]))

        await wait_until(has_a_new_lock)
        assert await tasks.add_task(work.add, 1, 1).wait(LIMIT) == 2


async def test_an_answer_that_is_lost_after_the_commit_loses_and_repeats_nothing(
    database: str, tasks: QueuedTasks, rows: Rows, tmp_path: Path
) -> None:
    async with proxied(database) as (proxy, dsn), running_server(dsn):
        for fatal in (b"queued_tasks.claim", b"queued_tasks.settle"):
            await tasks.add_task(work.add, 1, 1).wait(LIMIT)  # so that the statement is prepared
            proxy.cut_after(fatal)
            ref = tasks.add_task(work.say, str(tmp_path), fatal.decode())
            await ref.wait(LIMIT)
            assert marks(tmp_path, fatal.decode()) == 1
    assert await rows.leases() == 0


async def test_tasks_whose_claim_a_crash_of_postgresql_undid_are_interrupted(
    database: str, tasks: QueuedTasks, rows: Rows, tmp_path: Path
) -> None:
    async with running_server(database):
        refs = await held_tasks(tasks, tmp_path, 3)
        await wait_until(lambda: started(tmp_path) == 3)
        # what a crash leaves behind: no lease, the tasks in line as before
        await rows.value(
            "with gone as (delete from queued_tasks.lease returning ids, attempts) "
            "select queued_tasks.line_up(g.ids, g.attempts, false) from gone g"
        )
        await rows.value(
            "select count(pg_terminate_backend(pid)) from pg_stat_activity "
            "where application_name like 'queued-tasks server%' and datname = current_database()"
        )
        await wait_until(lambda: marks(tmp_path, "ended") == 3)
        await wait_until(lambda: started(tmp_path) == 6)
        go(tmp_path)
        for ref in refs:
            await ref.wait(LIMIT)
    assert await rows.value("select count(*) from queued_tasks.attempt") == 0


@pytest.mark.skipif("QUEUE_TEST_DATABASE_URL" in os.environ, reason="crashes a PostgreSQL server: needs one of its own")
async def test_a_crash_of_postgresql_itself_is_survived(tmp_path: Path) -> None:
    with running_postgres(_home_in(tmp_path)) as superuser:
        name = template_name()
        await ensure_template(superuser, name)
        async with fresh_database(superuser, template=name) as database, running_server(database) as server:
            async with QueuedTasks.connect(database) as tasks, connected(database) as victim:
                refs = await held_tasks(tasks, tmp_path, 3)
                await wait_until(lambda: started(tmp_path) >= 3)
                os.kill(await victim.fetchval("select pg_backend_pid()"), signal.SIGKILL)
                go(tmp_path)
                for ref in refs:
                    await ref.wait(LIMIT)
                assert await tasks.add_task(work.add, 1, 1).wait(LIMIT) == 2
            assert server.running
            async with rows_of(database) as rows:
                assert await rows.states() == {"done": 4}


def _home_in(folder: Path) -> Path:
    folder.chmod(0o711)  # under root PostgreSQL runs as another user and must pass through
    return folder / "postgres"


async def test_while_ends_can_not_be_recorded_no_more_is_claimed_without_end(
    database: str, tasks: QueuedTasks, rows: Rows
) -> None:
    claimed: list[int] = []

    async def stands_still() -> bool:
        claimed.append(await rows.value("select coalesce(sum(cardinality(ids)), 0) from queued_tasks.lease"))
        return claimed[-1] >= MOST_UNRECORDED and claimed[-50:] == claimed[-1:] * 50

    async with running_server(database, workers=2) as server, connected(database) as other:
        async with other.transaction():
            await other.execute("lock table queued_tasks.result in share mode")
            await tasks.add_tasks([TaskSpec(work.add, (1, 1))] * 50_000)
            await wait_until(stands_still, deadline=LIMIT)
            assert await rows.value("select count(*) from queued_tasks.bundle")
        await wait_until(lambda: _are_done(rows, 50_000), deadline=LIMIT)
        assert await server.stop() == 0
    assert await rows.value("select count(*) from queued_tasks.attempt") == 0


async def _are_done(rows: Rows, count: int) -> bool:
    return bool(await rows.value("select count(*) from queued_tasks.result") == count)


async def _answers(server: Server, path: str, status: int) -> bool:
    return await server.probe(path) == status


async def _has_lock(server: Server) -> bool:
    row = await server.heartbeat()
    return bool(row and row["lock_key"])
