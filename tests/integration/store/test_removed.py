"""What a server repeats of a task that was removed while its lease stays for others leaves no trace."""

from __future__ import annotations

from typing import Any

import pytest

from queued_tasks.runtime.task import Claimed, ContextWrite, LogWrite, ServerId
from tests.store import Store, blocked, ended


async def _removed_while_its_lease_stays(store: Store, server: ServerId, **end: Any) -> Claimed:
    """The first of two tasks of a lease: its end is recorded, and it is removed."""
    await store.one(auto_remove=True)
    await store.one()
    it, other = await store.claim(server)
    await store.settle(server, ended(it, **end), part=[other.lease])
    await store.session.fetch("clear", None, None)
    assert await store.rows("select id from queued_tasks.task") == [other.id]
    return it


@pytest.mark.parametrize("end", [{}, {"outcome": "retry", "delay": 0.0}, {"outcome": "failed", "delay": 60.0}])
async def test_a_repeated_settlement_of_a_removed_task_writes_nothing_while_its_lease_stays(
    store: Store, end: dict[str, Any]
) -> None:
    server = await store.server()
    it = await _removed_while_its_lease_stays(store, server, **end)
    settlement = await store.settle(server, ended(it, **end), part=[it.lease])
    assert (settlement.lost, settlement.lined) == (frozenset(), 0)
    assert [await store.count(table) for table in ("result", "attempt", "delayed", "ready")] == [0, 0, 0, 0]


async def test_a_repeated_settlement_of_a_removed_task_closes_its_lease(store: Store) -> None:
    server = await store.server()
    it = await _removed_while_its_lease_stays(store, server)
    await store.settle(server, ended(it))
    assert [await store.count(table) for table in ("result", "lease")] == [0, 0]


async def test_a_removed_task_is_not_held_while_its_lease_stays(store: Store) -> None:
    server = await store.server()
    it = await _removed_while_its_lease_stays(store, server)
    (other,) = await store.rows("select id from queued_tasks.task")
    assert await store.servers.held(server, 0) == {it.lease: {other: 1}}


@pytest.mark.parametrize("flagged", [True, False])
async def test_a_removed_task_keeps_nothing_else_in_the_batch_from_being_recorded(store: Store, flagged: bool) -> None:
    server = await store.server()
    it = await _removed_while_its_lease_stays(store, server)
    (other,) = await store.rows("select id from queued_tasks.task")
    settlement = await store.settle(server, ended(it, flagged=flagged), ended(it, id=other, flagged=False))
    assert (settlement.lost, await store.rows("select id from queued_tasks.result")) == (frozenset(), [other])


async def test_contexts_and_log_lines_of_a_removed_task_are_dropped_while_its_lease_stays(store: Store) -> None:
    server = await store.server()
    it = await _removed_while_its_lease_stays(store, server)
    contexts, logs = [ContextWrite(it, 1, "{}")], [LogWrite(it, 0.0, 20, "app", "hello", None)]
    await store.settle(server, ended(it), part=[it.lease], contexts=contexts, logs=logs)
    await store.tasks.record(server, contexts, logs)
    assert [await store.count(table) for table in ("context", "log")] == [0, 0]


@pytest.mark.parametrize("end", [{}, {"outcome": "failed", "delay": 60.0}])
async def test_a_settlement_that_is_repeated_while_its_task_is_removed_writes_nothing(
    store: Store, end: dict[str, Any]
) -> None:
    server = await store.server()
    await store.add(2)
    it, other = await store.claim(server)
    await store.settle(server, ended(it, **end), part=[other.lease])
    settler = await store.another()
    await store.begin()
    removed = await (store.session.fetch_value("clear", None, None) if end else store.upkeep.prune(-3600, 9))
    again = await blocked(store, settler, settler.settle(server, ended(it, **end), part=[other.lease]))
    await store.commit()
    assert (removed, (await again).lost) == (1, frozenset())
    assert [await store.count(table) for table in ("result", "attempt", "delayed", "ready")] == [0, 0, 0, 0]


async def test_a_settlement_that_is_repeated_while_a_last_child_removes_its_task_writes_nothing(store: Store) -> None:
    server = await store.server()
    parent = await store.one(auto_remove=True)
    await store.one()
    child = await store.one(parents=(parent.id,))
    it, other = sorted(await store.claim(server), key=lambda it: it.id != parent.id)
    await store.settle(server, ended(it), part=[other.lease])
    settler = await store.another()
    last = await store.claim_one(server)
    await store.begin()
    await store.settle(server, ended(last))
    again = await blocked(store, settler, settler.settle(server, ended(it), part=[other.lease]))
    await store.commit()
    assert (last.id, (await again).lost) == (child.id, frozenset())
    assert await store.rows("select id from queued_tasks.result") == [child.id]
