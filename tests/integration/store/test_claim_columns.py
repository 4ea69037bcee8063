"""What comes along with a claim only for those that need it: parents' results, what a signature covers, the place."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta

from msgspec.structs import replace

from queued_tasks.runtime.signing import Signer
from tests.store import Store, ended, new_task

SIGNER = Signer(["key"])


async def test_a_plain_task_brings_nothing_along(store: Store) -> None:
    await store.tasks.add([new_task()])
    server = await store.server()
    claimed = await store.claim_one(server)
    assert (claimed.sealed, claimed.parents) == (None, None)


async def test_a_claim_says_where_the_task_belongs(store: Store) -> None:
    await store.tasks.add([new_task(channel="mail", priority=-7)])
    server = await store.server()
    claimed = await store.claim_one(server)
    assert (claimed.channel, claimed.priority) == ("mail", -7)


async def test_a_signed_task_is_claimed_as_it_was_written(store: Store) -> None:
    task = new_task(
        kwargs='{"x":  1}',
        name="named",
        channel="mail",
        key="tenant",
        priority=3,
        max_retries=5,
        timeout=0.1,
        run_at=datetime.now(UTC) - timedelta(microseconds=1),
        expires_at=datetime(9999, 12, 31, 23, 59, 59, 999999, tzinfo=UTC),
        unique_key="once",
        auto_remove=True,
        context='{"a": "\\u20ac"}',
    )
    task = replace(task, signature=SIGNER.sign(task))
    await store.tasks.add([task])
    server = await store.server()
    claimed = await store.claim_one(server)
    assert claimed.as_written() == task
    assert SIGNER.accepts(claimed.as_written())


async def test_the_parents_of_a_signed_task_are_those_that_were_given(store: Store) -> None:
    winner = new_task(unique_key="once")
    await store.tasks.add([winner])
    loser = new_task(unique_key="once")
    child = new_task(parents=(loser.id,))
    child = replace(child, signature=SIGNER.sign(child))
    await store.tasks.add([loser, child])
    server = await store.server()
    parent = await store.claim_one(server)
    await store.settle(server, ended(parent, result="5"))
    claimed = await store.claim_one(server)
    assert (claimed.as_written(), json.loads(claimed.parents or "")) == (child, [5])


async def test_results_that_are_too_much_stay_behind(store: Store) -> None:
    parent = new_task()
    await store.tasks.add([parent, new_task(parents=(parent.id,))])
    server = await store.server()
    claimed = await store.claim_one(server)
    await store.settle(server, ended(claimed, result=json.dumps("x" * 300_000)))
    child = await store.claim_one(server)
    assert child.parents == "[]"
