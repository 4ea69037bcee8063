"""A disk of PostgreSQL is full: what needs no room goes on, the rest waits and says so, nothing is lost."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.databases import connected
from tests.fault.cluster import Cluster, cluster
from tests.fault.disk import Disk, small_disk
from tests.fault.trial import Trial
from tests.servers import Rows, Server, running_server
from tests.waiting import wait_until

pytestmark = pytest.mark.xdist_group("clusters")

NO_ROOM = "PostgreSQL has no room left"
ENDED = "select count(*) from queued_tasks.result"
LOGGED = "select count(*) from queued_tasks.log"


@pytest.fixture
def postgres() -> Iterator[Cluster]:
    with cluster() as made:
        yield made


@pytest.fixture
def disk(postgres: Cluster) -> Iterator[Disk]:
    with small_disk(postgres.folder / "small", postgres.owner) as made:
        yield made
        postgres.kill()


@pytest.fixture
async def database(postgres: Cluster, disk: Disk) -> str:
    await postgres.make()
    await postgres.make_database()
    return postgres.local


async def move(table: str, database: str, disk: Disk) -> None:
    """Keep a table on the small disk."""
    async with connected(database) as connection:
        await connection.execute(f"create tablespace small location '{disk.folder}'")
        await connection.execute(f"alter table queued_tasks.{table} set tablespace small")


async def fill_under_load(disk: Disk, trial: Trial, server: Server) -> None:
    await trial.add(200, 0.1)
    await trial.begun(100)
    disk.fill()
    await wait_until(lambda: NO_ROOM in server.said, deadline=60)


async def test_tasks_end_while_there_is_no_room_for_what_they_log(
    database: str, disk: Disk, trial: Trial, rows: Rows
) -> None:
    await move("log", database, disk)
    async with running_server(database, workers=2, concurrency=20) as server:
        async with trial.stream(every=0.005):
            await fill_under_load(disk, trial, server)
            ended = await rows.value(ENDED)
            await wait_until(lambda: rows.value(f"select ({ENDED}) > $1", ended + 100), deadline=60)
            logged = await rows.value(LOGGED)
            disk.free()
            await wait_until(lambda: rows.value(f"select ({LOGGED}) > $1", logged + 50), deadline=60)
            await wait_until(lambda: "has room again" in server.said, deadline=60)
            await trial.goes_on()
        await trial.check(away=True, ends=frozenset())


async def test_ends_of_tasks_are_kept_while_there_is_no_room_for_them(database: str, disk: Disk, trial: Trial) -> None:
    await move("result", database, disk)
    async with running_server(database, workers=2, concurrency=20) as server:
        async with trial.stream(every=0.005):
            await fill_under_load(disk, trial, server)
            await trial.begun(len(trial.runs()) + 20)
            disk.free()
            await trial.goes_on()
        await trial.check(away=True, ends=frozenset())
        assert not trial.again()
