"""What follows on the end of an attempt."""

from __future__ import annotations

import asyncio
import math
import sys
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from queued_tasks.runtime.errors import InvalidTask
from queued_tasks.runtime.lifecycle import (
    Interrupted,
    Why,
    after_death,
    after_error,
    after_interrupt,
    after_timeout,
    message_of,
    own_word,
    refused,
    storable,
)
from queued_tasks.runtime.options import TaskOptions
from queued_tasks.runtime.retry import Cancel, Retry

PLAIN = TaskOptions()
jitters = st.floats(min_value=0, max_value=1, exclude_max=True)


@dataclass
class Past:
    failures: int = 0
    timeouts: int = 0
    max_retries: int = 3


class Unprintable(Exception):
    def __str__(self) -> str:
        raise ValueError("no text")


@pytest.mark.parametrize(("failures", "delay"), [(0, 30.0), (1, 120.0), (2, 480.0), (3, None)])
def test_a_failing_task_has_three_retries_after_its_first_attempt(failures: int, delay: float | None) -> None:
    verdict = after_error(ValueError("x"), Past(failures), PLAIN, 0.5)
    assert (verdict.outcome, verdict.delay) == ("failed", delay)


def test_a_failure_names_the_exception_and_its_text() -> None:
    verdict = after_error(KeyError("tenant"), Past(), PLAIN, 0.5)
    assert (verdict.exception_name, verdict.exception_message) == ("KeyError", "'tenant'")


def test_without_retries_the_first_failure_is_the_end() -> None:
    assert after_error(ValueError(), Past(max_retries=0), PLAIN, 0.5).delay is None


@pytest.mark.parametrize(
    "options",
    [
        TaskOptions(retry_on=(ConnectionError,)),
        TaskOptions(give_up_on=(ValueError,)),
        TaskOptions(retry_on=(ValueError,), give_up_on=(Exception,)),
    ],
)
def test_what_is_not_worth_a_retry_ends_the_task(options: TaskOptions) -> None:
    assert after_error(ValueError(), Past(), options, 0.5).delay is None


@pytest.mark.parametrize(
    "options",
    [
        TaskOptions(give_up_on=(KeyError,)),
        TaskOptions(give_up_on=(ExceptionGroup,)),
        TaskOptions(retry_on=(OSError,)),
    ],
)
def test_a_group_with_something_that_is_not_worth_a_retry_ends_the_task(options: TaskOptions) -> None:
    group = ExceptionGroup("several", [OSError(), ExceptionGroup("more", [KeyError()])])
    assert after_error(group, Past(), options, 0.5).delay is None


def test_a_group_of_what_is_worth_a_retry_gets_one() -> None:
    group = ExceptionGroup("several", [ConnectionResetError(), ExceptionGroup("more", [BrokenPipeError()])])
    verdict = after_error(group, Past(), TaskOptions(retry_on=(ConnectionError,)), 0.5)
    assert verdict.delay == pytest.approx(30)
    assert verdict.exception_name == "ExceptionGroup"


def test_what_a_task_asks_for_counts_in_a_group_of_nothing_else() -> None:
    later, never = Retry(5), Cancel("over")
    assert own_word(ExceptionGroup("one", [later])) is later
    assert own_word(ExceptionGroup("both", [later, ExceptionGroup("inner", [never])])) is never


def test_a_failure_beside_it_is_a_failure() -> None:
    group = ExceptionGroup("both", [Cancel(), ValueError()])
    assert own_word(group) is group


def test_what_is_named_worth_a_retry_gets_one() -> None:
    verdict = after_error(ConnectionResetError(), Past(), TaskOptions(retry_on=(ConnectionError,)), 0.5)
    assert verdict.delay == pytest.approx(30)


@pytest.mark.parametrize("error", [SystemExit(1), KeyboardInterrupt(), asyncio.CancelledError()])
def test_an_exit_raised_by_the_function_is_a_failure_like_others(error: BaseException) -> None:
    assert after_error(error, Past(), PLAIN, 0.5).delay == pytest.approx(30)


def test_an_exit_is_given_up_where_only_named_errors_are_retried() -> None:
    assert after_error(SystemExit(1), Past(), TaskOptions(retry_on=(OSError,)), 0.5).delay is None


def test_the_function_s_own_backoff_counts() -> None:
    options = TaskOptions(backoff=lambda failures: failures * 10)
    assert after_error(ValueError(), Past(failures=1), options, 0.9).delay == pytest.approx(20)


def test_a_backoff_of_zero_still_goes_to_the_end_of_the_line() -> None:
    delay = after_error(ValueError(), Past(), TaskOptions(backoff=timedelta(0)), 0.5).delay
    assert delay is not None
    assert delay > 0


def test_a_backoff_that_fails_gives_way_to_the_default_and_is_named() -> None:
    def broken(_: int) -> float:
        raise ZeroDivisionError("by zero")

    verdict = after_error(ValueError("x"), Past(), TaskOptions(backoff=broken), 0.5)
    assert verdict.delay == pytest.approx(30)
    assert "ZeroDivisionError" in (verdict.exception_message or "")


def test_a_retry_asked_for_is_not_bounded_by_the_budget() -> None:
    verdict = after_error(Retry(in_=5), Past(failures=9, max_retries=0), PLAIN, 0.5)
    assert (verdict.outcome, verdict.delay) == ("retry", 5)


def test_a_retry_asked_for_at_once_goes_to_the_end_of_the_line() -> None:
    assert after_error(Retry(in_=0), Past(), PLAIN, 0.5).delay == pytest.approx(0.001)


def test_a_retry_without_a_time_waits_for_the_backoff() -> None:
    verdict = after_error(Retry(reason="busy"), Past(), PLAIN, 0.5)
    assert (verdict.outcome, verdict.delay, verdict.exception_message) == ("retry", 30, "busy")


def test_cancel_ends_the_task_with_its_reason() -> None:
    verdict = after_error(Cancel("no such user"), Past(), PLAIN, 0.5)
    assert (verdict.outcome, verdict.delay, verdict.exception_message) == ("cancelled", None, "no such user")


def test_the_first_timeout_is_granted_a_retry() -> None:
    verdict = after_timeout(2.5, Past(), 0.5)
    assert (verdict.outcome, verdict.delay, verdict.exception_name) == ("timeout", 30, "TaskTimeout")
    assert "2.5 s" in (verdict.exception_message or "")


@pytest.mark.parametrize("past", [Past(failures=1, timeouts=1), Past(max_retries=0), Past(failures=3)])
def test_a_timeout_beyond_that_or_beyond_the_budget_is_a_failure(past: Past) -> None:
    verdict = after_timeout(1, past, 0.5)
    assert (verdict.outcome, verdict.delay, verdict.exception_name) == ("failed", None, "TaskTimeout")


@pytest.mark.parametrize(
    ("why", "outcome", "delay"),
    [(Why.CANCEL, "cancelled", None), (Why.STOP, "stopped", math.inf), (Why.DRAIN, "interrupted", 0)],
)
def test_an_interrupt_means_what_it_was_made_for(why: Why, outcome: str, delay: float | None) -> None:
    verdict = after_interrupt(why)
    assert (verdict.outcome, verdict.delay) == (outcome, delay)


def test_a_task_survives_two_deaths_of_its_worker_and_not_a_third() -> None:
    outcomes = [(after_death(crashes).outcome, after_death(crashes).delay) for crashes in range(3)]
    assert outcomes == [("crashed", 0), ("crashed", 0), ("failed", None)]


def test_a_task_that_can_t_run_is_not_retried() -> None:
    verdict = refused("InvalidTask", ValueError("unknown"))
    assert (verdict.outcome, verdict.delay, verdict.exception_name) == ("failed", None, "InvalidTask")


def test_an_exception_without_a_text_still_has_a_message() -> None:
    assert "ValueError" in message_of(Unprintable())


def test_an_interrupt_is_not_taken_for_a_text_that_can_t_be_had() -> None:
    class Slow(Exception):
        def __str__(self) -> str:
            raise Interrupted

    with pytest.raises(Interrupted):
        message_of(Slow())


class Markup(str):
    __slots__ = ()


@pytest.mark.parametrize(
    ("reason", "text"), [(ValueError("boo"), "boo"), (None, ""), (7, "7"), (Markup("gone"), "gone")]
)
def test_a_reason_of_any_kind_becomes_a_plain_text(reason: Any, text: str) -> None:
    for raised in (Cancel(reason), Retry(reason=reason)):
        message = after_error(raised, Past(), PLAIN, 0.5).exception_message
        assert (message, type(message)) == (text, str)


def test_what_is_no_time_to_wait_is_named() -> None:
    class Later(Retry):
        def __init__(self) -> None:
            self.in_ = "soon"  # type: ignore[assignment]

    with pytest.raises(InvalidTask, match="in_ is 'soon'"):
        after_error(Later(), Past(), PLAIN, 0.5)


def test_a_backoff_that_exits_gives_way_to_the_default() -> None:
    assert after_error(ValueError(), Past(), TaskOptions(backoff=lambda _: sys.exit(1)), 0.5).delay == pytest.approx(30)


@given(st.text(), st.integers(min_value=2, max_value=50))
def test_what_is_stored_fits_postgresql(text: str, most: int) -> None:
    kept = storable(text, most)
    assert "\0" not in kept
    assert kept.encode().decode() == kept


def test_a_long_text_keeps_its_start_and_its_end() -> None:
    kept = storable("a" + "b" * 100 + "c", 20)
    assert kept.startswith("abb")
    assert kept.endswith("bbc")
    assert "82 characters left out" in kept


@given(st.integers(min_value=0, max_value=10), st.integers(min_value=0, max_value=10), jitters)
def test_the_failures_of_a_task_never_outnumber_its_retries_by_more_than_one(
    max_retries: int, timeouts_first: int, jitter: float
) -> None:
    past = Past(max_retries=max_retries)
    for attempt in range(max_retries + 2):
        timed_out = attempt < timeouts_first
        verdict = after_timeout(1, past, jitter) if timed_out else after_error(ValueError(), past, PLAIN, jitter)
        past = Past(past.failures + 1, past.timeouts + timed_out, max_retries)
        if verdict.delay is None:
            break
    assert verdict.delay is None
    assert past.failures <= max_retries + 1
