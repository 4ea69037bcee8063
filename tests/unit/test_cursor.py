"""Going through ids with a cursor: what is done again, what is skipped, when it is stored."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import Future
from typing import Any
from uuid import UUID, uuid4

import pytest

from queued_tasks import InvalidTask, QueuedTasksError, get_context, iter_with_cursor
from queued_tasks.runtime import wire
from queued_tasks.runtime.current import Running, Workplace, running_here

ID = UUID(int=5)


class Stored:
    """What was stored, in order, each time a commit was asked for."""

    def __init__(self) -> None:
        self.values: list[Any] = []

    def __call__(self, running: Running) -> Future[str | None]:
        assert running.context is not None
        self.values.append(json.loads(running.context.take() or "null"))
        done: Future[str | None] = Future()
        done.set_result(None)
        return done


@pytest.fixture
def stored() -> Stored:
    return Stored()


def attempt(context: str | None, stored: Stored) -> Running:
    """An attempt of a task that has got so far."""
    row = wire.Attempt(1, ID.bytes, 2, "import", "app:load", 0, "[]", None, context, None, 0, 0, 3)
    running = Running(row, Workplace(lambda _: None, commit_context=stored))
    running.begin()
    return running


@pytest.fixture
def running(stored: Stored, request: pytest.FixtureRequest) -> Iterator[Running]:
    running = attempt(getattr(request, "param", None), stored)
    token = running_here.set(running)
    yield running
    running_here.reset(token)


stored_at = pytest.mark.parametrize("running", ['{"cursor": 3}'], indirect=True)


@pytest.mark.usefixtures("running")
def test_a_plain_loop_gets_all_ids() -> None:
    assert list(iter_with_cursor([1, 2, 3])) == [1, 2, 3]


@pytest.mark.usefixtures("running")
async def test_an_async_loop_gets_all_ids() -> None:
    assert [id async for id in iter_with_cursor(range(3))] == [0, 1, 2]


@pytest.mark.usefixtures("running")
def test_each_id_is_stored_before_the_next_one_comes(stored: Stored) -> None:
    before = [(id, [*stored.values]) for id in iter_with_cursor([1, 2])]
    assert before == [(1, []), (2, [{"cursor": 1}])]


@pytest.mark.usefixtures("running")
def test_every_so_many_ids_are_stored_and_the_last_one(stored: Stored) -> None:
    assert len(list(iter_with_cursor(range(1, 8), commit_every=3))) == 7
    assert [value["cursor"] for value in stored.values] == [3, 6, 7]


@pytest.mark.usefixtures("running")
def test_an_id_whose_turn_is_broken_off_is_not_done() -> None:
    for id in iter_with_cursor([1, 2, 3]):
        if id == 2:
            break
    assert get_context("cursor") == 1


@stored_at
@pytest.mark.usefixtures("running")
@pytest.mark.parametrize(
    "ids", [range(1, 6), [1, 2, 3, 4, 5], iter([1, 2, 3, 4, 5])], ids=["range", "list", "iterator"]
)
def test_a_next_attempt_begins_behind_the_last_id(ids: Any) -> None:
    assert list(iter_with_cursor(ids)) == [4, 5]


@stored_at
@pytest.mark.usefixtures("running")
async def test_ids_that_come_asynchronously_are_skipped_likewise() -> None:
    async def ids() -> AsyncIterator[int]:
        for id in range(1, 6):
            yield id

    assert [id async for id in iter_with_cursor(ids())] == [4, 5]


@stored_at
@pytest.mark.usefixtures("running")
def test_another_key_begins_anew() -> None:
    assert list(iter_with_cursor([1, 2], key="other")) == [1, 2]


@pytest.mark.usefixtures("running")
def test_uuids_are_kept_as_text_and_go_on_in_their_order() -> None:
    ids = sorted(uuid4() for _ in range(5))
    assert next(iter(iter_with_cursor(ids))) == ids[0]
    for _, id in zip(range(3), iter_with_cursor(ids), strict=False):
        last = id
    assert get_context("cursor") == str(ids[1])
    assert list(iter_with_cursor(ids)) == ids[2:]
    assert last == ids[2]


@pytest.mark.usefixtures("running")
@pytest.mark.parametrize("ids", [[1, 3, 2], range(3, 0, -1)], ids=["list", "range"])
def test_ids_that_do_not_ascend_are_refused(ids: Any) -> None:
    with pytest.raises(InvalidTask, match="must ascend"):
        list(iter_with_cursor(ids))


@stored_at
@pytest.mark.usefixtures("running")
def test_ids_of_another_kind_than_the_cursor_are_refused() -> None:
    with pytest.raises(InvalidTask, match="can't be compared"):
        list(iter_with_cursor(iter(["a", "b"])))


@pytest.mark.usefixtures("running")
@pytest.mark.parametrize("commit_every", [0, "all"])
def test_an_odd_commit_every_is_refused(commit_every: Any) -> None:
    with pytest.raises(InvalidTask, match="commit_every"):
        iter_with_cursor([1], commit_every=commit_every)


def test_there_must_be_a_running_task() -> None:
    with pytest.raises(QueuedTasksError, match="outside a running task"):
        iter_with_cursor([1])


@pytest.mark.usefixtures("running")
async def test_a_plain_loop_in_async_code_is_refused_for_it_would_block() -> None:
    with pytest.raises(QueuedTasksError, match="blocks its thread"):
        list(iter_with_cursor([1]))
