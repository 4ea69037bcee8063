"""Three hosts and a database, each in a network of its own: they join, cables are pulled and put back, a host dies."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack

import pytest

from tests.fault.cluster import Cluster, cluster
from tests.fault.network import ADDRESS, Network, network
from tests.fault.trial import Trial
from tests.servers import Rows, Server, running_server
from tests.waiting import wait_until

pytestmark = pytest.mark.xdist_group("clusters")

HOSTS = ("a", "b", "c")
TTL = 3  # seconds
AWAY = 4  # seconds, less than the lease of a server that is not told otherwise
LOST = "select exists (select from queued_tasks.server where end_reason = 'lost')"


@pytest.fixture
def lan() -> Iterator[Network]:
    with network(*HOSTS) as made:
        yield made


@pytest.fixture
async def postgres(lan: Network) -> AsyncIterator[Cluster]:
    with cluster(address=ADDRESS, within=lan.database) as made:
        await made.make()
        await made.make_database()
        yield made


@pytest.fixture
def database(postgres: Cluster) -> str:
    """As this process reaches it, whatever becomes of the network."""
    return postgres.local


@pytest.fixture
def lease_ttl(request: pytest.FixtureRequest) -> float:
    return float(getattr(request, "param", TTL))


@pytest.fixture
async def servers(lan: Network, postgres: Cluster, database: str, lease_ttl: float) -> AsyncIterator[dict[str, Server]]:
    async with AsyncExitStack() as stack:
        yield {
            host: await stack.enter_async_context(
                running_server(
                    database,
                    name=host,
                    within=lan.namespace(host),
                    database_url=postgres.dsn,
                    concurrency=20,
                    lease_ttl=lease_ttl,
                )
            )
            for host in HOSTS
        }


async def test_three_hosts_that_join_share_the_work(trial: Trial, servers: dict[str, Server]) -> None:
    async with trial.stream():
        await trial.add(300, 0.1)
        await wait_until(lambda: all(_runs_of(server, trial) for server in servers.values()), deadline=60)
    await trial.check(ends=frozenset())


async def test_a_host_whose_cable_was_pulled_is_given_up_and_comes_back_when_it_is_put_back(
    lan: Network, trial: Trial, rows: Rows, servers: dict[str, Server]
) -> None:
    await trial.add(300, 0.4)
    await trial.under_way(50)
    trial.strikes()
    lan.cut("c")
    await wait_until(lambda: rows.value(LOST), deadline=60)
    await wait_until(trial.again, deadline=60)
    lan.heal("c")
    await wait_until(lambda: "given up by its peers" in servers["c"].said, deadline=60)
    await servers["c"].wait_for_work()
    await trial.check(away=True)


@pytest.mark.parametrize("lease_ttl", [60], indirect=True)
async def test_a_host_whose_cable_is_put_back_in_time_goes_on_and_nothing_runs_twice(
    lan: Network, trial: Trial, servers: dict[str, Server]
) -> None:
    await trial.add(300, 0.3)
    await trial.under_way(50)
    lan.cut("c")
    await asyncio.sleep(AWAY)
    lan.heal("c")
    await trial.goes_on()
    await trial.check(away=True, ends=frozenset())
    assert not trial.again()


async def test_a_host_that_loses_power(lan: Network, trial: Trial, servers: dict[str, Server]) -> None:
    await trial.add(300, 0.4)
    await trial.under_way(50)
    trial.strikes()
    lan.cut("c")  # nobody hears of its end
    for pid in (servers["c"].pid, *(worker.pid for worker in servers["c"].workers())):
        os.kill(pid, signal.SIGKILL)
    await trial.check(away=True)
    assert trial.recovered_in() < 4 * TTL


@pytest.mark.parametrize("lease_ttl", [60], indirect=True)
async def test_all_hosts_are_cut_off_from_the_database_for_a_while(
    lan: Network, trial: Trial, servers: dict[str, Server]
) -> None:
    async with trial.stream():
        await trial.add(200, 0.2)
        await trial.under_way(50)
        lan.cut(*HOSTS)
        await asyncio.sleep(AWAY)
        lan.heal(*HOSTS)
        await trial.goes_on()
    await trial.check(away=True, ends=frozenset())


def _runs_of(server: Server, trial: Trial) -> int:
    workers = {worker.pid for worker in server.workers()}
    return sum(run.pid in workers for run in trial.runs())
