"""Chains, groups, chords, and families that are retried together."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Any
from unittest.mock import patch

import pytest

from queued_tasks import QueuedTasks, TaskSpec
from queued_tasks.runtime.errors import InvalidState, InvalidTask
from queued_tasks.runtime.store.link import Link
from tests.store import Store


def work(value: Any = None) -> None: ...


@pytest.fixture
async def store(database: str) -> AsyncIterator[Store]:
    async with AsyncExitStack() as stack:
        yield await Store.open(database, stack)


async def parents(tasks: QueuedTasks, ref: Any) -> list[Any]:
    task = await tasks.get_task_by_id(ref.id)
    assert task is not None
    return task.parents


async def test_a_chain_hangs_each_task_on_the_one_before(tasks: QueuedTasks) -> None:
    refs = await tasks.chain(TaskSpec(work), TaskSpec(work), TaskSpec(work))
    assert [await parents(tasks, ref) for ref in refs] == [[], [refs[0].id], [refs[1].id]]


async def test_a_group_has_no_order(tasks: QueuedTasks) -> None:
    refs = await tasks.group(TaskSpec(work), TaskSpec(work))
    assert [await parents(tasks, ref) for ref in refs] == [[], []]


async def test_a_chord_ends_with_a_task_that_waits_for_all(tasks: QueuedTasks) -> None:
    *header, last = await tasks.chord([TaskSpec(work), TaskSpec(work)], TaskSpec(work))
    assert await parents(tasks, last) == [ref.id for ref in header]


async def test_graphs_may_hang_on_others(tasks: QueuedTasks) -> None:
    before = tasks.group(TaskSpec(work), TaskSpec(work))
    first, second = await tasks.chain(TaskSpec(work, parent=before[:]), TaskSpec(work, parent=before[0]))
    assert await parents(tasks, first) == [ref.id for ref in before]
    assert await parents(tasks, second) == [first.id, before[0].id]


async def test_graphs_of_nothing_are_empty(tasks: QueuedTasks) -> None:
    assert (await tasks.chain(), await tasks.group()) == ([], [])
    assert len(await tasks.chord([], TaskSpec(work))) == 1


async def test_what_is_no_spec_is_refused(tasks: QueuedTasks) -> None:
    with pytest.raises(InvalidTask, match="chain got <function work"):
        tasks.chain(work)  # type: ignore[arg-type]  # that is the mistake


async def test_a_whole_graph_goes_out_in_one_statement(tasks: QueuedTasks) -> None:
    await tasks.add_task(work)  # the lane is known by now
    statements: list[str] = []
    fetch = Link.fetch

    async def counted(self: Link, statement: str, *args: Any, **options: Any) -> Any:
        statements.append(statement)
        return await fetch(self, statement, *args, **options)

    with patch.object(Link, "fetch", counted):
        await tasks.chord([TaskSpec(work, [number]) for number in range(100)], TaskSpec(work))
    assert [statement for statement in statements if statement != "notify"] == ["add_tasks"]


async def test_a_retry_takes_the_failed_descendants_along(tasks: QueuedTasks, store: Store) -> None:
    root, middle, leaf = await tasks.chain(TaskSpec(work, ["root"]), TaskSpec(work), TaskSpec(work, ["leaf"]))
    server = await store.server()
    await store.run(server, "failed")
    assert await leaf.get_state() == "failed"
    again = await tasks.retry_task(root.id, subtree=True)
    server = await store.server()
    ran = [claimed for _ in range(3) for claimed in await store.run(server)]
    assert [claimed.name for claimed in ran] == ["work_retry"] * 3
    assert (ran[0].id, ran[0].args, ran[2].args) == (again.id, '["root"]', '["leaf"]')
    assert not {claimed.id for claimed in ran} & {root.id, middle.id, leaf.id}


async def test_without_the_subtree_the_descendants_stay_as_they_are(tasks: QueuedTasks, store: Store) -> None:
    root, _ = await tasks.chain(TaskSpec(work), TaskSpec(work))
    await store.run(await store.server(), "failed")
    await tasks.retry_task(root.id)
    assert await store.count("task") == 3


async def test_cancelled_descendants_come_along_and_those_that_ran_anyway_do_not(
    tasks: QueuedTasks, store: Store
) -> None:
    root = tasks.add_task(work, "root")
    tasks.add_task(work, "cancelled", parent=root)
    tasks.add_task(work, "ran", parent=root, on_parent_failure="run")
    await tasks.flush()
    await root.cancel()
    server = await store.server()
    await store.run(server)
    await tasks.retry_task(root.id, subtree=True)
    ran = [claimed.args for _ in range(2) for claimed in await store.run(server)]
    assert ran == ['["root"]', '["cancelled"]']


async def test_the_clones_keep_what_becomes_of_them_when_a_parent_fails(tasks: QueuedTasks, store: Store) -> None:
    root, child = await tasks.chain(TaskSpec(work), TaskSpec(work, on_parent_failure="cancel"))
    server = await store.server()
    await store.run(server, "failed")
    again = await tasks.retry_task(root.id, subtree=True)
    await store.run(server, "failed")
    clone = await store.value("select child from queued_tasks.dependency where parent = $1", again.id)
    assert (await store.state(child.id), await store.state(clone)) == ("cancelled", "cancelled")


async def test_a_clone_of_a_fan_in_waits_for_its_other_parent_too(tasks: QueuedTasks, store: Store) -> None:
    good, bad = await tasks.group(TaskSpec(work, ["good"]), TaskSpec(work, ["bad"]))
    child = tasks.add_task(work, "child", parent=[good, bad])
    await child
    await bad.cancel()
    again = await tasks.retry_task(bad.id, subtree=True)
    clone = await store.value("select child from queued_tasks.dependency where parent = $1", again.id)
    task = await tasks.get_task_by_id(clone)
    assert task is not None
    assert (task.parents, task.state) == ([good.id, again.id], "waiting")


async def test_a_family_under_way_is_not_retried(tasks: QueuedTasks) -> None:
    ref = tasks.add_task(work)
    await ref
    with pytest.raises(InvalidState):
        await tasks.retry_task(ref.id, subtree=True)
