"""Contexts and log lines: who may still write them, and which of them stay."""

from __future__ import annotations

import pytest

from queued_tasks.runtime.ids import new_id
from queued_tasks.runtime.lifecycle import MOST_CRASHES, PARDONED
from queued_tasks.runtime.task import ContextWrite, LogWrite, ServerId
from tests.store import Store, ended


async def test_contexts_of_a_foreign_server_are_refused(store: Store) -> None:
    await store.one()
    it = await store.claim_one(await store.server())
    await store.tasks.record(ServerId(new_id()), [ContextWrite(it, 1, "{}")], [])
    assert await store.count("context") == 0


async def test_log_lines_of_a_foreign_server_are_refused(store: Store) -> None:
    await store.one()
    server = await store.server()
    it = await store.claim_one(server)
    line = LogWrite(it, 0.0, 20, "app", "hello", None)
    await store.tasks.record(ServerId(new_id()), [], [line])
    await store.settle(server, ended(it))
    await store.tasks.record(ServerId(new_id()), [], [line])
    assert await store.count("log") == 0


async def test_a_log_line_that_comes_after_the_recorded_end_is_kept(store: Store) -> None:
    await store.one()
    server = await store.server()
    (it,) = await store.run(server)
    await store.tasks.record(server, [], [LogWrite(it, 0.0, 20, "app", "late", None)])
    assert await store.count("log") == 1


@pytest.mark.parametrize("lost", [0, PARDONED, PARDONED + MOST_CRASHES - 1])
async def test_a_log_line_that_comes_after_a_rescue_is_refused(store: Store, lost: int) -> None:
    await store.one()
    for _ in range(lost):
        server = await store.server()
        await store.claim(server)
        await store.rescue(server)
    server = await store.server()
    it = await store.claim_one(server)
    await store.rescue(server)
    await store.tasks.record(server, [], [LogWrite(it, 0.0, 20, "app", "late", None)])
    assert await store.count("log") == 0


async def test_log_lines_keep_their_order_and_their_level(store: Store) -> None:
    await store.one()
    server = await store.server()
    it = await store.claim_one(server)
    levels = [20, 10, 35, 50]
    await store.tasks.record(server, [], [LogWrite(it, 0.0, level, "app", str(level), None) for level in levels])
    lines = await store.reads.logs(it.id, after=None, limit=3)
    assert [line.level for line in lines] == ["INFO", "DEBUG", "35"]
    assert [line.message for line in await store.reads.logs(it.id, after=None, limit=9)] == ["20", "10", "35", "50"]


async def test_an_older_version_of_a_context_never_replaces_a_newer_one(store: Store) -> None:
    await store.one()
    server = await store.server()
    it = await store.claim_one(server)
    for version in (1, 3, 2):
        await store.tasks.record(server, [ContextWrite(it, version, f'{{"version": {version}}}')], [])
    task = await store.reads.task(it.id)
    assert task is not None
    assert task.context == {"version": 3}


async def test_versions_of_a_context_do_not_pile_up(store: Store) -> None:
    await store.one()
    server = await store.server()
    it = await store.claim_one(server)
    for version in range(20):
        await store.tasks.record(server, [ContextWrite(it, version, "{}")], [])
    assert await store.count("context") == 1
