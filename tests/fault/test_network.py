"""A network that cuts, swallows and delays, before servers and before those who enqueue."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable
from uuid import UUID

import pytest

from tests.fault.trial import Trial
from tests.fault.visitors import visitors
from tests.proxy import Proxy, proxied
from tests.servers import Rows, running_server, serving
from tests.waiting import wait_until

TTL = 3  # seconds
AWAY = 2  # seconds
REQUESTS = 300
A_LEASE = b"\x00\x00\x00\x10"  # follows the server in a claim
OUTCOME = b"\x00\x00\x00\x04done"  # as a settlement says it, after it has written contexts and lines


async def test_cut_connections_of_a_server(database: str, trial: Trial) -> None:
    async with proxied(database) as (proxy, dsn), running_server(dsn, workers=2, concurrency=20):
        await trial.add(200, 0.1)
        async with trial.stream():
            for _ in range(5):
                await trial.begun(len(trial.runs()) + 10)
                proxy.cut()
                await asyncio.sleep(0.5)
                await proxy.open()
            await trial.goes_on()
        await trial.check(ends=frozenset(), away=True)


async def test_what_a_server_wrote_comes_through_after_its_peers_gave_it_up(
    database: str, trial: Trial, rows: Rows
) -> None:
    async with (
        proxied(database) as (proxy, dsn),
        running_server(dsn, name="remote", concurrency=20, lease_ttl=TTL) as remote,
        running_server(database, name="near", concurrency=20, lease_ttl=TTL),
    ):
        await trial.add(300, 0.4)
        await trial.under_way(40)
        trial.strikes()
        proxy.freeze()
        await wait_until(lambda: rows.value("select count(*) from queued_tasks.server where end_reason = 'lost'"))
        await wait_until(trial.again)
        proxy.thaw()
        await wait_until(lambda: "given up by its peers" in remote.said)
        await remote.wait_for_work()
        await trial.check(away=True)


async def test_a_host_that_vanishes_in_the_middle_of_a_settlement(database: str, trial: Trial) -> None:
    async with (
        proxied(database) as (proxy, dsn),
        running_server(dsn, name="remote", concurrency=20, lease_ttl=TTL) as remote,
        running_server(database, name="near", concurrency=20, lease_ttl=TTL),
    ):
        await trial.add(200, 0.2)
        await trial.begun(100)
        proxy.hold(OUTCOME)
        await wait_until(lambda: proxy.held)
        proxy.freeze()
        trial.strikes()
        remote.signal(signal.SIGKILL)
        await trial.check(away=True)


async def test_a_claim_that_arrives_long_after_its_connection_was_given_up(
    database: str, trial: Trial, rows: Rows
) -> None:
    async with proxied(database) as (proxy, dsn), running_server(dsn, concurrency=5):
        await trial.add(200, 0.1)
        await trial.begun(20)
        server: UUID = await rows.value("select server from queued_tasks.heartbeat")
        proxy.hold(server.bytes + A_LEASE)
        await wait_until(lambda: proxy.held)
        await trial.begun(len(trial.runs()) + 20)
        proxy.deliver()
        await trial.check(ends=frozenset())


async def test_a_server_that_gets_no_answers_for_a_while(database: str, trial: Trial) -> None:
    async with proxied(database) as (proxy, dsn), running_server(dsn, concurrency=20):
        await trial.add(200, 0.1)
        await trial.begun(50)
        proxy.freeze()
        await asyncio.sleep(AWAY)
        proxy.thaw()
        await trial.goes_on()
        await trial.check(ends=frozenset(), away=True)


async def test_a_server_far_from_its_database(database: str, trial: Trial) -> None:
    async with proxied(database) as (proxy, dsn):
        proxy.delay = 0.2
        async with running_server(dsn, workers=2, concurrency=20):
            await trial.add(200, 0.1)
            await trial.check(ends=frozenset())


def cut(proxy: Proxy) -> None:
    proxy.cut()


def freeze(proxy: Proxy) -> None:
    proxy.freeze()


def delay(proxy: Proxy) -> None:
    proxy.delay = 0.3


@pytest.mark.parametrize("fault", [cut, freeze, delay], ids=lambda it: it.__name__)
async def test_what_a_web_process_acknowledged_is_there(
    database: str, trial: Trial, rows: Rows, fault: Callable[[Proxy], None]
) -> None:
    async with (
        proxied(database) as (proxy, dsn),
        serving("tests.apps.web:app", dsn) as url,
        visitors(url, trial, requests=REQUESTS),
    ):
        await wait_until(lambda: len(trial.added) > REQUESTS / 4)
        fault(proxy)
        await asyncio.sleep(AWAY)
        await _mend(proxy, fault)
    assert len(trial.added) > REQUESTS / 2
    assert await rows.value("select count(*) from queued_tasks.task") <= REQUESTS
    async with running_server(database, workers=2):
        await trial.check()


async def _mend(proxy: Proxy, fault: Callable[[Proxy], None]) -> None:
    proxy.delay = 0
    proxy.thaw()
    if fault is cut:
        await proxy.open()
