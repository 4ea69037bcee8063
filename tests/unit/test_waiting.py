"""The tests' own way to wait."""

from __future__ import annotations

import pytest

from tests.waiting import wait_until


async def test_waiting_ends_when_the_predicate_turns_true() -> None:
    answers = iter([False, False, True])
    await wait_until(lambda: next(answers))
    assert list(answers) == []


async def test_an_async_predicate_is_awaited() -> None:
    answers = iter([False, True])

    async def arrived() -> bool:
        return next(answers)

    await wait_until(arrived)
    assert list(answers) == []


async def test_waiting_in_vain_names_what_was_waited_for() -> None:
    def the_task_is_done() -> bool:
        return False

    with pytest.raises(AssertionError, match="the_task_is_done"):
        await wait_until(the_task_is_done, deadline=0.01)


async def test_waiting_in_vain_shows_a_lambda_as_written() -> None:
    with pytest.raises(AssertionError, match="1 > 2"):
        await wait_until(lambda: 1 > 2, deadline=0.01)


async def test_an_error_of_the_predicate_is_not_taken_for_the_end_of_the_wait() -> None:
    def unreachable() -> bool:
        raise TimeoutError("no answer")

    with pytest.raises(TimeoutError, match="no answer"):
        await wait_until(unreachable)
