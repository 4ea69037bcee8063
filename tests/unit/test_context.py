"""The context of a task: paths, what is kept, when it is written back."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from uuid import UUID

import pytest

from queued_tasks.runtime import nested, wire
from queued_tasks.runtime.context import (
    clear_context,
    get_context,
    get_full_context,
    set_context,
    set_full_context,
)
from queued_tasks.runtime.current import Running, Workplace, get_current_task, running_here
from queued_tasks.runtime.errors import InvalidState, QueuedTasksError, SerializationError
from queued_tasks.runtime.nested import Context

ID = UUID(int=5)


def attempt(context: str | None = None) -> wire.Attempt:
    return wire.Attempt(1, ID.bytes, 2, "import", "app:load", 0, "[]", None, context, 60.0, 0, 0, 3)


@pytest.fixture
def changed() -> list[Running]:
    """The attempts whose contexts had something to write back."""
    return []


@pytest.fixture
def running(changed: list[Running]) -> Iterator[Running]:
    """An attempt that runs in the test."""
    running = Running(attempt('{"page": 3, "user": {"name": "Ada"}}'), Workplace(changed.append))
    running.begin()
    token = running_here.set(running)
    yield running
    running_here.reset(token)


@pytest.mark.usefixtures("running")
class TestInATask:
    def test_a_retry_finds_what_was_stored(self) -> None:
        assert get_context("user.name") == "Ada"

    def test_a_path_makes_the_dictionaries_on_its_way(self) -> None:
        set_context("a.b.c", 1)
        assert get_full_context() == {"page": 3, "user": {"name": "Ada"}, "a": {"b": {"c": 1}}}

    @pytest.mark.parametrize("path", ["nowhere", "user.age", "page.number"])
    def test_what_is_not_there_is_the_default(self, path: str) -> None:
        assert get_context(path, "default") == "default"

    def test_none_is_a_value(self) -> None:
        set_context("nothing", None)
        assert get_context("nothing", "default") is None

    def test_a_value_is_kept_as_json_gives_it_back(self) -> None:
        set_context("when", datetime(2026, 1, 1, tzinfo=UTC))
        set_context("pair", (1, 2))
        assert (get_context("when"), get_context("pair")) == ("2026-01-01T00:00:00Z", [1, 2])

    def test_what_is_kept_changes_by_set_context_alone(self) -> None:
        given = [1]
        set_context("list", given)
        given.append(2)
        get_context("list").append(3)
        get_full_context()["list"].append(4)
        assert get_context("list") == [1]

    def test_a_path_through_a_value_is_refused(self) -> None:
        with pytest.raises(InvalidState, match="'page'"):
            set_context("page.number", 1)

    @pytest.mark.parametrize("path", ["", "a..b", ".a", "a.", 7, "a\0b"])
    def test_an_odd_path_is_refused(self, path: str) -> None:
        with pytest.raises(SerializationError):
            set_context(path, 1)

    @pytest.mark.parametrize("value", [float("nan"), object(), "a\0b", {1: 2}])
    def test_what_json_can_t_keep_is_refused_and_leaves_nothing(self, value: object) -> None:
        with pytest.raises(SerializationError):
            set_context("a.b", value)
        assert get_context("a") is None

    def test_all_of_it_can_be_replaced(self) -> None:
        set_full_context({"x": 1})
        assert get_full_context() == {"x": 1}

    def test_it_can_be_emptied(self) -> None:
        clear_context()
        assert get_full_context() == {}

    def test_only_a_dictionary_replaces_it(self) -> None:
        with pytest.raises(SerializationError):
            set_full_context([1])  # type: ignore[arg-type]  # what is tested

    async def test_a_thread_started_from_the_task_reaches_it(self) -> None:
        await asyncio.to_thread(set_context, "a", 1)
        assert get_context("a") == 1

    def test_the_current_task_tells_who_it_is(self) -> None:
        task = get_current_task()
        assert task is not None
        assert (task.id, task.name, task.attempt, task.app) == (ID, "import", 2, None)
        assert task.deadline is not None
        assert task.deadline > datetime.now(UTC)


def test_the_first_change_is_announced_and_later_ones_travel_with_it(running: Running, changed: list[Running]) -> None:
    set_context("a", 1)
    set_context("a", 2)
    assert changed == [running]
    assert running.context is not None
    assert json.loads(running.context.take() or "")["a"] == 2


def test_what_was_sent_is_not_sent_again(running: Running) -> None:
    set_context("a", 1)
    assert running.context is not None
    running.context.take()
    assert running.context.take() is None


def test_a_change_after_that_is_announced_anew(running: Running, changed: list[Running]) -> None:
    set_context("a", 1)
    assert running.context is not None
    running.context.take()
    set_context("a", 2)
    assert changed == [running, running]


class TestWithoutCommit:
    @pytest.mark.usefixtures("running")
    def test_a_change_is_not_announced(self, changed: list[Running]) -> None:
        set_context("a", 1, auto_commit=False)
        set_full_context({"b": 2}, auto_commit=False)
        clear_context(auto_commit=False)
        assert changed == []
        assert get_full_context() == {}

    def test_it_travels_with_the_next_one_that_is(self, running: Running, changed: list[Running]) -> None:
        set_context("a", 1, auto_commit=False)
        set_context("b", 2)
        assert changed == [running]
        assert sent(running) == {"page": 3, "user": {"name": "Ada"}, "a": 1, "b": 2}

    def test_it_does_not_travel_with_one_before_it(self, running: Running) -> None:
        set_context("a", 1)
        set_context("b", 2, auto_commit=False)
        set_context("c", 3, auto_commit=False)
        assert sent(running) == {"page": 3, "user": {"name": "Ada"}, "a": 1}
        assert sent(running) is None

    def test_nor_is_it_lost_behind_one_before_it(self, running: Running, changed: list[Running]) -> None:
        set_context("a", 1)
        set_context("b", 2, auto_commit=False)
        set_context("c", 3)
        assert changed == [running]
        assert sent(running) == {"page": 3, "user": {"name": "Ada"}, "a": 1, "b": 2, "c": 3}

    def test_a_later_one_is_announced_anew(self, running: Running, changed: list[Running]) -> None:
        set_context("a", 1)
        set_context("b", 2, auto_commit=False)
        sent(running)
        set_context("c", 3)
        assert changed == [running, running]

    def test_the_end_takes_it_along(self, running: Running) -> None:
        set_context("a", 1, auto_commit=False)
        assert running.context is not None
        assert json.loads(running.context.take() or "")["a"] == 1


def sent(running: Running) -> object:
    """What would be sent now."""
    assert running.context is not None
    text = running.context.take_committed()
    return None if text is None else json.loads(text)


def test_reading_sends_nothing(running: Running, changed: list[Running]) -> None:
    get_context("page")
    assert changed == []
    assert running.context is not None
    assert running.context.take() is None


@pytest.mark.parametrize(
    "call",
    [
        lambda: set_context("a", 1),
        lambda: get_context("a"),
        get_full_context,
        lambda: set_full_context({}),
        clear_context,
    ],
)
def test_outside_a_task_it_says_so(call: Callable[[], object]) -> None:
    with pytest.raises(QueuedTasksError, match="outside a running task"):
        call()


def test_outside_a_task_there_is_no_current_one() -> None:
    assert get_current_task() is None


def test_what_outlives_its_attempt_is_outside_of_it(running: Running) -> None:
    running.over = True
    assert get_current_task() is None
    with pytest.raises(QueuedTasksError):
        set_context("a", 1)


def test_a_context_that_grows_too_large_is_refused_and_stays_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nested, "MAX_CONTEXT", 100)
    monkeypatch.setattr("queued_tasks.runtime.codec.MAX_RESULT_BYTES", 100)
    context = Context()
    context.set("a", "x" * 60)
    with pytest.raises(SerializationError):
        context.set("b.c", "y" * 60)
    assert context.copy() == {"a": "x" * 60}


def test_threads_may_write_while_it_is_taken() -> None:
    context = Context()
    with ThreadPoolExecutor(4) as pool:
        for number in range(400):
            pool.submit(context.set, f"key{number}", number)
            context.take()
    assert len(context.copy()) == 400
