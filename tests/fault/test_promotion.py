"""The primary dies, its standby takes over: nothing acknowledged is lost, and nobody has to be restarted."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass

import pytest

from queued_tasks import Settings
from queued_tasks.runtime.direct import open_backend
from queued_tasks.runtime.ids import new_id
from queued_tasks.runtime.task import Executor, NewTask
from tests.databases import connected
from tests.fault.cluster import Cluster, cluster
from tests.fault.trial import Trial
from tests.fault.visitors import visitors
from tests.servers import Rows, rows_of, running_server, serving
from tests.waiting import wait_until

pytestmark = pytest.mark.xdist_group("clusters")

REQUESTS = 300
FOLLOWS = "select sync_state = $1 and state = 'streaming' from pg_stat_replication"
CANCEL = "select count(pg_cancel_backend(pid)) from pg_stat_activity where wait_event = 'SyncRep'"


@dataclass(frozen=True)
class Pair:
    """A primary, and a standby that has all that is committed there."""

    primary: Cluster
    standby: Cluster

    @property
    def dsn(self) -> str:
        """That of whichever takes writes."""
        return f"postgresql://postgres@{self.primary.host},{self.standby.host}/trial?target_session_attrs=read-write"

    async def fail_over(self) -> None:
        self.primary.kill()
        await self.standby.promote()


@pytest.fixture
def synchronous(request: pytest.FixtureRequest) -> bool:
    """Whether a commit waits for the standby."""
    return bool(getattr(request, "param", True))


@pytest.fixture
async def pair(synchronous: bool) -> AsyncIterator[Pair]:
    with cluster() as primary, cluster() as standby:
        await primary.make()
        await primary.make_database()
        await standby.follow(primary)
        async with connected(primary.dsn) as connection:
            if synchronous:
                await connection.execute("alter system set synchronous_standby_names = '*'")
                await connection.execute("select pg_reload_conf()")
            state = "sync" if synchronous else "async"
            await wait_until(lambda: connection.fetchval(FOLLOWS, state))
        yield Pair(primary, standby)


@pytest.fixture
def database(pair: Pair) -> str:
    return pair.dsn


async def test_a_promotion_under_load(pair: Pair, database: str, trial: Trial) -> None:
    async with (
        running_server(database, name="first", concurrency=20),
        running_server(database, name="second", concurrency=20),
        serving("tests.apps.web:app", database) as url,
    ):
        await trial.add(200, 0.1)
        async with trial.stream(), visitors(url, trial, requests=REQUESTS):
            await trial.begun(100)
            await pair.fail_over()
            await trial.goes_on()
        await trial.check(away=True, forgetful=True, ends=frozenset())


@pytest.mark.parametrize("synchronous", [False], indirect=True)
async def test_a_promotion_of_a_standby_that_lags(pair: Pair, database: str, trial: Trial) -> None:
    async with (
        running_server(database, name="first", concurrency=20),
        running_server(database, name="second", concurrency=20),
    ):
        await trial.add(300, 0.1)
        await trial.begun(50)
        with pair.standby.without("walreceiver"):
            await trial.begun(150)
            pair.primary.kill()
            pair.standby.kill()  # what has come to it, and not been read, is lost
        await pair.standby.start()
        await pair.standby.promote()
        await trial.goes_on()
        await trial.check(away=True, forgetful=True)


async def test_a_task_that_the_standby_may_not_have_is_not_acknowledged(pair: Pair, rows: Rows) -> None:
    backend = await open_backend(pair.dsn, Settings())
    first, second = (NewTask(id=new_id(), function="app:send", executor=Executor.ASYNC, args="[]") for _ in range(2))
    await backend.write([first])
    pair.standby.kill()
    for again in (False, True):
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(1):
                await backend.write([second], repeat=again)
        await rows.value(CANCEL)  # lets a commit that waits for the standby be seen all the same
    await pair.standby.start()
    await backend.write([second], repeat=True)
    await pair.fail_over()
    async with rows_of(pair.dsn) as there:
        assert await there.value("select count(*) from queued_tasks.task") == 2
    await backend.close()
