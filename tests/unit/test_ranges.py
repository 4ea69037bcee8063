"""Dividing ids among tasks."""

from __future__ import annotations

from typing import Any

import pytest

from queued_tasks import InvalidState, InvalidTask, QueuedTasks, TaskRef, TaskSpec, enqueue_id_range_tasks


class Handle(QueuedTasks):
    """Keeps what would be written."""

    def __init__(self) -> None:
        self.specs: list[TaskSpec] = []

    async def add_tasks(self, items: Any) -> list[TaskRef]:
        self.specs = list(items)
        return []


async def load(min_id: int, max_id: int, table: str) -> None: ...


async def ranges(ids: Any, **options: Any) -> list[tuple[Any, Any]]:
    handle = Handle()
    await enqueue_id_range_tasks(load, ids, tasks=handle, table="users", **options)
    return [(spec.kwargs["min_id"], spec.kwargs["max_id"]) for spec in handle.specs]


@pytest.mark.parametrize(
    "ids", [range(1, 11), list(range(1, 11)), iter(range(1, 11))], ids=["range", "list", "iterator"]
)
async def test_each_task_gets_the_ends_of_its_chunk(ids: Any) -> None:
    assert await ranges(ids, chunk_size=4) == [(1, 4), (5, 8), (9, 10)]


async def test_gaps_between_ids_do_not_count() -> None:
    assert await ranges([1, 100, 1000, 5000, 5001], chunk_size=2) == [(1, 100), (1000, 5000), (5001, 5001)]


async def test_a_huge_range_is_not_gone_through() -> None:
    assert len(await ranges(range(10**12), chunk_size=10**11)) == 10


async def test_no_ids_are_no_tasks() -> None:
    assert await ranges([]) == []


async def test_options_and_arguments_reach_the_tasks() -> None:
    handle = Handle()
    await enqueue_id_range_tasks(load, [1], channel="bulk", priority=-5, max_retries=9, tasks=handle, table="users")
    (spec,) = handle.specs
    assert spec.options == {"channel": "bulk", "priority": -5, "max_retries": 9, "auto_remove": True}
    assert spec.kwargs == {"min_id": 1, "max_id": 1, "table": "users"}


@pytest.mark.parametrize("ids", [[1, 3, 2], [1, 2, 2, 1], [1, 1]])
@pytest.mark.parametrize("chunk_size", [1, 2, 200])
async def test_ids_that_do_not_ascend_are_refused(ids: Any, chunk_size: int) -> None:
    with pytest.raises(InvalidTask, match="must ascend"):
        await ranges(ids, chunk_size=chunk_size)


async def test_an_odd_size_is_refused() -> None:
    with pytest.raises(InvalidTask, match="chunk_size"):
        await ranges([1], chunk_size=0)


async def test_without_a_task_a_handle_is_wanted() -> None:
    with pytest.raises(InvalidState, match="inside a task"):
        await enqueue_id_range_tasks(load, [1], table="users")
