"""The calls that every task pays for read by index and read little, whatever the statistics say."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import asyncpg
import pytest

from queued_tasks.runtime.task import ContextWrite, LogWrite, NewTask
from tests.limits import limit
from tests.store import Store, ended, new_task

BATCH = 100
TABLES = {
    "task",
    "bundle",
    "delayed",
    "attempt",
    "result",
    "dependency",
    "unique_task",
    "waiter",
    "context",
    "tombstone",
    "token",
    "turn",
    "newcomer",
}

FILL = """
    insert into queued_tasks.lane (channel, priority, sync, again) values ('default', 0, false, false)
        on conflict do nothing;
    insert into queued_tasks.task (id, executor, priority, max_retries, auto_remove, function, channel, args)
    select lpad(to_hex(n), 32, '0')::uuid, 0, 0, 3, false, 'app:work', 'default', '[]'
      from generate_series(1, 400000) n;
    insert into queued_tasks.result (id, state, attempt)
    select lpad(to_hex(n), 32, '0')::uuid, 'done', 1 from generate_series(1, 200000) n;
    insert into queued_tasks.bundle (lane, ids, attempt)
    select l.id, array[lpad(to_hex(n), 32, '0')::uuid], 1
      from queued_tasks.lane l, generate_series(200001, 400000) n
     where (l.channel, l.priority, l.sync, l.again) = ('default', 0, false, false) order by n;
    insert into queued_tasks.unique_task (key, id)
    select n::text, lpad(to_hex(n), 32, '0')::uuid from generate_series(200001, 250000) n;
    insert into queued_tasks.dependency (parent, child, released)
    select lpad(to_hex(n), 32, '0')::uuid, lpad(to_hex(n + 1), 32, '0')::uuid, true from generate_series(1, 50000) n;
    insert into queued_tasks.attempt (id, attempt, outcome, server, started_at, ended_at)
    select lpad(to_hex(n), 32, '0')::uuid, 1, 'failed', gen_random_uuid(), now(), now()
      from generate_series(1, 50000) n;
    insert into queued_tasks.tombstone (id) select gen_random_uuid() from generate_series(1, 50000);
    insert into queued_tasks.token (id, channel, key, server, lease)
    select lpad(to_hex(n), 32, '0')::uuid, 'other', 'k' || n, gen_random_uuid(), gen_random_uuid()
      from generate_series(1, 50000) n;
    insert into queued_tasks.turn (lane, key, low) select 0, 'k' || n, 0 from generate_series(1, 50000) n;
    insert into queued_tasks.newcomer (lane, key, first) select 0, 'k' || n, 0 from generate_series(1, 50000) n;
"""


class Plans:
    """What auto_explain says of the statements of one session, those inside of functions included."""

    def __init__(self) -> None:
        self.roots: list[dict[str, Any]] = []
        self.compiled: list[str] = []  # statements that PostgreSQL took for so dear that it compiled them

    @classmethod
    async def of(cls, store: Store) -> Plans:
        plans = cls()
        connection = store.session.connection
        await connection.execute("""
            load 'auto_explain';
            set auto_explain.log_min_duration = 0;
            set auto_explain.log_nested_statements = on;
            set auto_explain.log_analyze = on;
            set auto_explain.log_timing = off;
            set auto_explain.log_buffers = on;
            set auto_explain.log_format = json;
            set client_min_messages = log;
        """)
        connection.add_log_listener(plans._heard)
        return plans

    def _heard(self, _connection: object, message: asyncpg.PostgresLogMessage) -> None:
        _, found, plan = str(message).partition("plan:\n")
        if found:
            said = json.loads(plan)
            self.roots.append(said["Plan"])
            if "JIT" in said:
                self.compiled.append(said["Query Text"])

    def scans(self) -> Iterator[dict[str, Any]]:
        """The nodes that read one of the tables."""
        todo = [*self.roots]
        while todo:
            node = todo.pop()
            todo += node.get("Plans", [])
            if node.get("Relation Name") in TABLES and "Scan" in node["Node Type"]:
                yield node

    def blind(self) -> list[tuple[str, str]]:
        """Scans of whole tables, and of whole indexes, unless they end with the first row."""
        return sorted(
            {
                (node["Relation Name"], node["Node Type"])
                for node in self.scans()
                if (node["Node Type"] != "Tid Scan" and "Index Cond" not in node and node["Actual Rows"] > 1)
                or node["Node Type"] == "Seq Scan"
            }
        )

    def greedy(self, most: int) -> list[tuple[str, str, float]]:
        """Scans that read more rows than that."""
        return [
            (node["Relation Name"], node["Node Type"], rows)
            for node in self.scans()
            if (rows := _rows_read(node)) > most
        ]

    def pages(self, table: str) -> int:
        """How many pages the index scans of a table touched."""
        scans = [node for node in self.scans() if node["Relation Name"] == table and "Index" in node["Node Type"]]
        return sum(node["Shared Hit Blocks"] + node["Shared Read Blocks"] for node in scans)


def _rows_read(node: dict[str, Any]) -> float:
    removed = node.get("Rows Removed by Filter", 0) + node.get("Rows Removed by Index Recheck", 0)
    return float((node["Actual Rows"] + removed) * node["Actual Loops"])


async def _tour(store: Store, limits: str) -> None:
    """What tasks of all kinds go through, from their enqueuing to their end; `limits` are those of their channel."""

    def task(n: int, **fields: Any) -> NewTask:
        return new_task(channel="mail", key=f"t{n % 7}" if "/key" in limits else None, priority=9, **fields)

    server = await store.server()
    parent = task(0)
    tasks = [task(n, unique_key=f"k{n}", auto_remove=True) for n in range(BATCH)]
    await store.tasks.add([*tasks, parent], repeat=True)
    await store.tasks.add([task(n, parents=(parent.id,)) for n in range(BATCH)])
    claimed = await store.claim(server, BATCH + 1)
    await store.settle(server, *(ended(it, "failed", delay=0.0) for it in claimed))
    claimed = await store.claim(server, BATCH + 1)
    logs = [LogWrite(it, 0.0, 20, "app", "hello", None) for it in claimed]
    await store.tasks.record(server, [ContextWrite(it, 1, "{}") for it in claimed], logs)
    await store.settle(server, *(ended(it) for it in claimed), logs=logs)
    await store.session.fetch("get_ends", [it.id for it in claimed])
    claimed = await store.claim(server, BATCH)
    await store.tasks.give_back(server, claimed[1:], full=[])
    await store.rescue(server)
    server = await store.server()
    claimed = await store.claim(server, BATCH)
    await store.settle(server, *(ended(it, "failed", delay=0.001) for it in claimed))
    await store.upkeep.promote(BATCH)


@pytest.fixture(params=["none", "10000", "10000/key:50"])
def limits(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(params=["empty", "full", "filled since"])
async def filled(store: Store, limits: str, request: pytest.FixtureRequest) -> Store:
    """Databases with honest statistics, and one that was empty when its session made its plans."""
    run = store.session.connection.execute
    await limit(store, limits)
    if request.param == "full":
        await run(FILL)
    await run("analyze")
    if request.param == "filled since":
        for _ in range(6):
            await _tour(store, limits)
        await run(FILL)
    return store


async def test_hot_calls_read_by_index_and_little(filled: Store, limits: str) -> None:
    plans = await Plans.of(filled)
    await _tour(filled, limits)
    assert (plans.blind(), plans.greedy(6 * BATCH), plans.compiled) == ([], [], [])


async def test_one_more_of_many_parents_that_is_done_does_not_read_all_the_others(store: Store) -> None:
    parents = await store.add(1_000)
    await store.one(parents=tuple(parent.id for parent in parents))
    server = await store.server()
    *most, one, _ = await store.claim(server, 1_000)
    await store.settle(server, *map(ended, most), part=[one.lease])
    plans = await Plans.of(store)
    await store.settle(server, ended(one), part=[one.lease])
    assert plans.greedy(10) == []


async def test_one_more_of_many_children_that_ends_does_not_read_all_the_others(store: Store) -> None:
    parent = await store.one(auto_remove=True)
    await store.add(1_000, parents=(parent.id,))
    server = await store.server()
    await store.run(server)
    *most, one, _ = await store.claim(server, 1_000)
    await store.settle(server, *map(ended, most), part=[one.lease])
    plans = await Plans.of(store)
    await store.settle(server, ended(one), part=[one.lease])
    assert plans.greedy(10) == []


async def test_what_ended_with_a_parent_of_many_is_found_by_index(store: Store) -> None:
    parent = await store.one()
    children = await store.add(1_000, parents=(parent.id,))
    grandchildren = await store.add(10, parents=tuple(child.id for child in children[:10]))
    await store.tasks.cancel([parent.id], "on request")
    plans = await Plans.of(store)
    found = await store.session.fetch("ended_with", parent.id)
    assert {row["id"] for row in found} == {task.id for task in (*children, *grandchildren)}
    assert ("result", "Seq Scan") not in plans.blind()
    assert (plans.greedy(2_000), plans.compiled) == ([], [])


async def test_a_page_of_any_state_reads_little(store: Store) -> None:
    await store.session.connection.execute(FILL)
    await store.session.connection.execute("analyze")
    plans = await Plans.of(store)
    for state in (None, "done", "failed", "cancelled", "doing", "stopped", "waiting"):
        await store.session.fetch("list_tasks", state, None, None, None, 50)
    assert plans.greedy(60_000) == []


async def test_a_claim_above_the_low_water_does_not_walk_over_what_was_claimed_before(store: Store) -> None:
    await store.session.connection.execute(FILL)
    pin = await store.another()
    await pin.session.connection.execute("begin isolation level repeatable read")
    await pin.count("server")
    server = await store.server()
    low = 0
    for _ in range(10):
        claimed = await store.claim(server, 5_000, low=low)
        low = claimed[-1].seq
        await store.settle(server, *(ended(it) for it in claimed))
    plans = await Plans.of(store)
    await store.claim(server, BATCH, low=low)
    above = plans.pages("bundle")
    plans.roots.clear()
    await store.claim(server, BATCH)
    assert above < 20
    assert plans.pages("bundle") > 10 * above


@pytest.mark.parametrize("keys", [1, 10, 4_000])
async def test_a_claim_in_the_turns_of_keys_does_not_walk_over_what_was_claimed_before(store: Store, keys: int) -> None:
    await limit(store, "60/key:60")
    pin = await store.another()
    await pin.session.connection.execute("vacuum analyze")
    await pin.session.connection.execute("begin isolation level repeatable read")
    await pin.count("server")
    server = await store.server()
    plans = await Plans.of(store)

    async def pages(rounds: int) -> dict[str, int]:
        """How many pages the last claim of so many touched."""
        for no in range(rounds):
            await store.tasks.add([new_task(channel="mail", key=f"k{(no * 60 + n) % keys}") for n in range(60)])
            plans.roots.clear()
            claimed = await store.claim(server, 60)
            assert len(claimed) == 60
            await store.settle(server, *(ended(it) for it in claimed))
        return {table: plans.pages(table) for table in ("bundle", "turn", "newcomer", "token")}

    before = await pages(2)
    after = await pages(30)
    # the indexes have one level more
    assert all(after[table] <= 2 * before[table] + 20 for table in after), (before, after)


async def test_the_end_of_some_tasks_of_a_channel_does_not_read_what_else_runs_in_it(store: Store) -> None:
    await store.session.connection.execute("vacuum analyze")
    await limit(store, "10000")
    await store.add(3_001, channel="mail")
    server = await store.server()
    (first,) = await store.claim(server, 1)
    await store.session.connection.execute("vacuum analyze")  # for so much settlements are planned
    await store.settle(server, ended(first))
    claimed = await store.claim(server, 3_000)
    plans = await Plans.of(store)
    await store.settle(server, *(ended(it) for it in claimed[:BATCH]), part=[claimed[0].lease])
    assert (plans.blind(), plans.greedy(2 * BATCH)) == ([], [])
    assert await store.count("token") == 3_000 - BATCH


@pytest.mark.parametrize("state", ["waits in line", "is claimed, while vacuum is held back"])
async def test_a_look_at_the_backlog_reads_no_more_than_it_is_asked_for(store: Store, state: str) -> None:
    await store.session.connection.execute(FILL)
    if state != "waits in line":
        pin = await store.another()
        await pin.session.connection.execute("begin isolation level repeatable read")
        await pin.count("server")
        await store.claim(await store.server(), 5_000)
    plans = await Plans.of(store)
    await store.session.connection.execute("select queued_tasks.backlog(1000)")
    assert (plans.blind(), plans.greedy(20_000)) == ([], [])
    assert plans.pages("bundle") < 200


async def test_a_look_at_the_whole_passes_over_so_many_cancelled_tasks_at_most(store: Store) -> None:
    await store.session.connection.execute(FILL)
    await store.session.connection.execute(
        "insert into queued_tasks.result (id, state, attempt) "
        "select id, 'cancelled', 0 from queued_tasks.ready on conflict do nothing; analyze"
    )
    plans = await Plans.of(store)
    await store.session.fetch("overview", 15.0)
    assert plans.greedy(1_000) == []
