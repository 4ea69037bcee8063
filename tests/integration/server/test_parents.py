"""What a task learns of its parents, through a real server."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from queued_tasks import QueuedTasks, TaskFailed, TaskSpec
from tests.apps import inside

LIMIT = 30  # seconds
pytestmark = pytest.mark.usefixtures("server")
both_kinds = pytest.mark.parametrize("function", [inside.parents, inside.parents_plainly])


@both_kinds
async def test_results_come_in_the_order_in_which_the_parents_were_given(
    tasks: QueuedTasks, function: Callable[..., Any]
) -> None:
    values = ["a", {"b": [1]}, None, 4.5]
    parents = [tasks.add_task(inside.give, value) for value in values]
    child = tasks.add_task(function, parent=parents[::-1])
    assert await child.wait(LIMIT) == values[::-1]


@both_kinds
async def test_a_parent_that_failed_is_none(tasks: QueuedTasks, function: Callable[..., Any]) -> None:
    good, bad = tasks.add_task(inside.give, 1), tasks.add_task(inside.fail, max_retries=0)
    child = tasks.add_task(function, parent=[bad, good], on_parent_failure="run")
    assert await child.wait(LIMIT) == [None, 1]


@both_kinds
async def test_a_task_without_parents_has_no_results(tasks: QueuedTasks, function: Callable[..., Any]) -> None:
    assert await tasks.add_task(function).wait(LIMIT) == []


@pytest.mark.parametrize("function", [inside.lengths_of_parents, inside.lengths_of_parents_plainly])
async def test_results_too_large_to_travel_with_the_task_are_fetched(
    tasks: QueuedTasks, function: Callable[..., Any]
) -> None:
    parents = [tasks.add_task(inside.text_of, length) for length in (200_000, 3, 100_000)]
    assert await tasks.add_task(function, parent=parents).wait(LIMIT) == [200_000, 3, 100_000]


async def test_large_results_in_an_async_task_must_be_awaited(tasks: QueuedTasks) -> None:
    parent = tasks.add_task(inside.text_of, 300_000)
    child = tasks.add_task(inside.count_parents_without_await, parent=parent, max_retries=0)
    with pytest.raises(TaskFailed, match=r"write `await get_parent_results\(\)`"):
        await child.wait(LIMIT)


async def test_a_parent_that_lost_to_a_unique_one_is_represented_by_it(tasks: QueuedTasks) -> None:
    first = tasks.add_task(inside.give, "the winner's", unique="once", run_at=inside.soon())
    await first
    second = tasks.add_task(inside.give, "the loser's", unique="once")
    child = tasks.add_task(inside.parents, parent=[tasks.add_task(inside.give, 1), second])
    assert await child.wait(LIMIT) == [1, "the winner's"]
    found = await tasks.get_task_by_id(child.id)
    assert found is not None
    assert found.parents[1] == first.id


async def test_in_one_batch_too(tasks: QueuedTasks) -> None:
    first = tasks.add_task(inside.give, "the winner's", unique="once", run_at=inside.soon())
    await first
    (second,) = await tasks.add_tasks([TaskSpec(inside.give, ("the loser's",), unique="once")])
    assert second.created is False
    assert await tasks.add_task(inside.parents, parent=second).wait(LIMIT) == ["the winner's"]
