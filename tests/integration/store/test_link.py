"""What goes wrong with a connection: its loss heals itself, a bug is not taken for it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress
from uuid import uuid4

import asyncpg
import pytest

from queued_tasks.runtime.errors import ConfigurationError, DatabaseUnavailable
from queued_tasks.runtime.store.link import LeaseLost, Link
from tests.store import SCHEMA, Store
from tests.waiting import wait_until

TERMINATE = "select pg_terminate_backend(pid) from pg_stat_activity where application_name = 'queued-tasks link'"


@pytest.fixture
async def link(database: str) -> AsyncIterator[Link]:
    link = Link(database, SCHEMA, name="link")
    yield link
    await link.close()


async def test_a_connection_that_is_lost_between_two_calls_is_opened_again(link: Link, store: Store) -> None:
    await link.fetch("probe")
    await store.rows(TERMINATE)

    async def is_back() -> bool:
        with suppress(DatabaseUnavailable):
            return len(await _sessions(link, store)) == 1
        return False

    await wait_until(is_back)


async def test_a_connection_that_is_lost_in_a_transaction_is_away(link: Link, store: Store) -> None:
    async def lose() -> None:
        async with link.transaction() as run:
            await run("probe")
            await store.rows(TERMINATE)
            await run("probe")

    with pytest.raises(DatabaseUnavailable):
        await lose()
    assert await link.fetch_value("probe") == 1


async def test_a_link_that_is_closed_in_a_transaction_is_away(link: Link) -> None:
    async def close() -> None:
        async with link.transaction() as run:
            await link.close()
            await run("probe")

    with pytest.raises(DatabaseUnavailable):
        await close()


async def test_two_statements_at_once_on_one_connection_are_a_bug(link: Link) -> None:
    with pytest.raises(asyncpg.InterfaceError, match="another operation is in progress"):
        async with link.transaction() as run:
            await asyncio.gather(run("probe"), run("probe"))


@pytest.mark.parametrize("arguments", [(), (uuid4(), 1)], ids=["too few", "too many"])
async def test_a_wrong_number_of_arguments_is_a_bug(link: Link, arguments: tuple[object, ...]) -> None:
    with pytest.raises(asyncpg.InterfaceError, match="expects 1 argument"):
        await link.fetch("was_written", *arguments)
    assert await link.fetch_value("was_written", uuid4()) is False


async def test_a_transaction_that_fails_is_rolled_back_and_the_connection_kept(link: Link, store: Store) -> None:
    async def fail() -> None:
        async with link.transaction() as run:
            await run("subscribe", [uuid4()], "topic")
            await run("claim", uuid4(), uuid4(), [], [], [], 1)

    before = await _sessions(link, store)
    with pytest.raises(LeaseLost):
        await fail()
    assert await store.count("waiter") == 0
    assert await _sessions(link, store) == before


async def test_a_url_that_can_not_be_used_is_a_matter_of_configuration() -> None:
    with pytest.raises(ConfigurationError, match="sslmode"):
        await Link("postgresql://localhost/x?sslmode=perhaps", SCHEMA, name="link").fetch("probe")


async def _sessions(link: Link, store: Store) -> list[int]:
    await link.fetch("probe")
    return await store.rows("select pid from pg_stat_activity where application_name = 'queued-tasks link'")
