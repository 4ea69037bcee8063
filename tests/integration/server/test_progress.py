"""Contexts and cursors under kills: what was committed is there, what was done is not done again."""

from __future__ import annotations

import os
import signal
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from queued_tasks import QueuedTasks
from tests.apps import inside
from tests.servers import Rows, go, marks, running_server
from tests.waiting import wait_until

LIMIT = 60  # seconds


def ranges(folder: Path) -> list[str]:
    """The ranges that were gone through."""
    notes = folder / "ranges"
    return sorted(notes.read_text().split()) if notes.exists() else []


both_kinds = pytest.mark.parametrize("function", [inside.go_through, inside.go_through_plainly])


def runs(folder: Path) -> Counter[int]:
    """How often each id was gone through."""
    return Counter(int(line) for line in (folder / "ids").read_text().split())


@both_kinds
@pytest.mark.usefixtures("server")
async def test_after_a_kill_only_the_id_under_way_is_done_again(
    tasks: QueuedTasks, tmp_path: Path, function: Callable[..., Any]
) -> None:
    assert await tasks.add_task(function, str(tmp_path), 10, 6, 1).wait(LIMIT) == 10
    assert runs(tmp_path) == {**dict.fromkeys(range(1, 11), 1), 6: 2}


@both_kinds
@pytest.mark.usefixtures("server")
async def test_with_fewer_commits_no_more_than_those_since_the_last_one_are_done_again(
    tasks: QueuedTasks, tmp_path: Path, function: Callable[..., Any]
) -> None:
    await tasks.add_task(function, str(tmp_path), 10, 9, 4).wait(LIMIT)
    assert runs(tmp_path) == {**dict.fromkeys(range(1, 11), 1), 9: 2}


async def test_a_kill_of_the_whole_server_loses_no_committed_id(
    tasks: QueuedTasks, database: str, tmp_path: Path
) -> None:
    async with running_server(database, name="one", lease_ttl=3) as first:
        ref = tasks.add_task(inside.go_through_until, str(tmp_path), 5)
        await ref
        await wait_until(lambda: marks(tmp_path, "waiting") == 1)
        for pid in (*(worker.pid for worker in first.workers()), first.pid):
            os.kill(pid, signal.SIGKILL)
        async with running_server(database, name="two", lease_ttl=3):
            assert await ref.wait(LIMIT) == 10
    assert runs(tmp_path) == {**dict.fromkeys(range(1, 11), 1), 5: 2}


@pytest.mark.usefixtures("server")
async def test_a_change_that_is_not_committed_is_seen_with_the_next_one_that_is(
    tasks: QueuedTasks, rows: Rows, tmp_path: Path
) -> None:
    async def seen() -> Any:
        found = await tasks.get_task_by_id(ref.id)
        return found.context if found else None

    ref = tasks.add_task(inside.change_context, str(tmp_path))
    await ref
    await wait_until(lambda: marks(tmp_path, "half") == 1)
    await wait_until(seen)
    assert await seen() == {"seen": 1}
    go(tmp_path)

    async def has_whole() -> bool:
        return "whole" in await seen()

    await wait_until(has_whole)
    assert await seen() == {"seen": 1, "half": 1, "whole": 1}
    (tmp_path / "end").touch()
    await ref.wait(LIMIT)


@pytest.mark.usefixtures("server")
async def test_a_change_that_is_not_committed_is_there_at_the_end(tasks: QueuedTasks) -> None:
    ref = tasks.add_task(inside.keep_until_the_end)
    await ref.wait(LIMIT)
    found = await tasks.get_task_by_id(ref.id)
    assert found is not None
    assert found.context == {"kept": 1}


@pytest.mark.parametrize("auto_remove", [False, True])
@pytest.mark.usefixtures("server")
async def test_ranges_run_once_though_the_task_that_adds_them_was_killed_behind_that(
    tasks: QueuedTasks, rows: Rows, tmp_path: Path, auto_remove: bool
) -> None:
    assert await tasks.add_task(inside.add_ranges_twice, str(tmp_path), auto_remove).wait(LIMIT) == 3
    assert await rows.value("select count(*) from queued_tasks.task") == (1 if auto_remove else 4)
    assert ranges(tmp_path) == ["1-4", "5-8", "9-10"]


@pytest.mark.parametrize("function", [inside.add_each, inside.add_each_plainly])
@pytest.mark.usefixtures("server")
async def test_a_task_that_goes_on_where_it_was_killed_adds_the_rest(
    tasks: QueuedTasks, tmp_path: Path, function: Callable[..., Any]
) -> None:
    await tasks.add_task(function, str(tmp_path), 6, 3).wait(LIMIT)
    await wait_until(lambda: len(ranges(tmp_path)) == 6)
    assert ranges(tmp_path) == [f"{id}-{id}" for id in range(1, 7)]


@pytest.mark.usefixtures("server")
async def test_a_task_that_runs_again_is_told_what_it_had_added(tasks: QueuedTasks, tmp_path: Path) -> None:
    assert await tasks.add_task(inside.add_and_say, str(tmp_path)).wait(LIMIT) == [False, False, True]


@pytest.mark.usefixtures("server")
async def test_a_plain_task_adds_ranges_too(tasks: QueuedTasks, tmp_path: Path) -> None:
    assert await tasks.add_task(inside.add_ranges, str(tmp_path)).wait(LIMIT) == 3
    await wait_until(lambda: len(ranges(tmp_path)) == 3)
    assert ranges(tmp_path) == ["1-4", "5-8", "9-10"]


@pytest.mark.usefixtures("server")
async def test_a_commit_outlasts_a_lost_connection(tasks: QueuedTasks, rows: Rows, tmp_path: Path) -> None:
    ref = tasks.add_task(inside.go_through, str(tmp_path), 200, 0, 1)
    await ref
    await wait_until(lambda: (tmp_path / "ids").exists() and len(runs(tmp_path)) > 20)
    await rows.value(
        "select count(pg_terminate_backend(pid)) from pg_stat_activity "
        "where datname = current_database() and pid <> pg_backend_pid() and application_name like '%settle%'"
    )
    assert await ref.wait(LIMIT) == 200
    assert set(runs(tmp_path).values()) == {1}
