"""The attempts that wait for the main thread of a sync worker."""

from __future__ import annotations

from uuid import UUID

from queued_tasks.actors.sync_worker_main import Line
from queued_tasks.runtime import wire
from queued_tasks.runtime.around import grant_time
from queued_tasks.runtime.current import Running, Workplace
from queued_tasks.runtime.lifecycle import Why
from tests.waiting import wait_until


def started() -> tuple[Line, Running]:
    """What runs, without any time, and its line."""
    line = Line()
    line.workplace = Workplace(lambda _: None, object())
    line.extend([wire.Attempt(1, UUID(int=1).bytes, 1, "report", "app:report", 1, "[]", None, None, 0.0, 0, 0, 3)])
    running = line.next()
    assert running is not None
    assert line.late() == []
    running.begin()
    return line, running


async def test_what_goes_on_behind_its_time_is_late_though_nobody_has_interrupted_it() -> None:
    line, _ = started()
    await wait_until(lambda: line.late() == [1])


async def test_the_hooks_behind_a_function_are_late_only_after_a_time_of_their_own() -> None:
    line, running = started()
    await wait_until(lambda: line.late() == [1])
    grant_time(running)
    assert line.late() == []
    running.why = Why.CANCEL
    assert line.late() == [1]


def test_what_interrupted_a_function_is_none_of_its_hooks() -> None:
    line, running = started()
    running.why = Why.TIMEOUT
    grant_time(running)
    assert line.late() == []
    assert running.why is None


def test_hooks_behind_a_function_that_has_much_time_left_have_that() -> None:
    _, running = started()
    running.deadline = 1e12
    grant_time(running)
    assert running.deadline == 1e12
