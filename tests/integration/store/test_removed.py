"""What a server repeats of a task that was removed while its lease stays for others leaves no trace."""

from __future__ import annotations

from typing import Any

import pytest

from queued_tasks.runtime.task import Claimed, ContextWrite, LogWrite, ServerId
from tests.store import Store, ended


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


async def test_contexts_and_log_lines_of_a_removed_task_are_dropped_while_its_lease_stays(store: Store) -> None:
    server = await store.server()
    it = await _removed_while_its_lease_stays(store, server)
    contexts, logs = [ContextWrite(it, 1, "{}")], [LogWrite(it, 0.0, 20, "app", "hello", None)]
    await store.settle(server, ended(it), part=[it.lease], contexts=contexts, logs=logs)
    await store.tasks.record(server, contexts, logs)
    assert [await store.count(table) for table in ("context", "log")] == [0, 0]
