"""When a failed task runs again."""

from __future__ import annotations

import math
from datetime import timedelta
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from queued_tasks.runtime.errors import InvalidTask, QueuedTasksError
from queued_tasks.runtime.retry import LONGEST_DELAY, Backoff, Cancel, Retry, default_backoff, delay_after, duration

jitters = st.floats(min_value=0, max_value=1, exclude_max=True)


@pytest.mark.parametrize(
    ("failures", "seconds"), [(1, 30), (2, 120), (3, 480), (4, 1800), (5, 1800), (10_000_000, 1800)]
)
def test_the_default_grows_by_four_up_to_half_an_hour(failures: int, seconds: int) -> None:
    assert timedelta(seconds=seconds) == default_backoff(failures, jitter=0.5)


def test_jitter_spreads_by_ten_percent_both_ways() -> None:
    spread = [default_backoff(1, jitter=jitter).total_seconds() for jitter in (0.0, 0.25, 0.75)]
    assert spread == pytest.approx([27.0, 28.5, 31.5])


def test_jitter_still_spreads_at_the_cap() -> None:
    assert default_backoff(9, jitter=0.0) < default_backoff(9, jitter=0.9)


@given(st.integers(min_value=-5, max_value=10**9), jitters)
def test_the_default_stays_within_its_bounds(failures: int, jitter: float) -> None:
    assert timedelta(seconds=27) <= default_backoff(failures, jitter=jitter) <= timedelta(minutes=33)


@given(jitters)
def test_the_default_never_shrinks_with_the_failures(jitter: float) -> None:
    delays = [default_backoff(failures, jitter=jitter) for failures in range(1, 8)]
    assert all(earlier <= later for earlier, later in pairwise(delays))


def test_without_a_backoff_of_its_own_a_function_gets_the_default() -> None:
    assert default_backoff(2, jitter=0.3) == delay_after(None, 2, 0.3)


@pytest.mark.parametrize("own", [10, 10.0, timedelta(seconds=10), lambda _: 10, lambda _: timedelta(seconds=10)])
def test_an_own_backoff_is_taken_as_it_stands(own: Backoff) -> None:
    assert timedelta(seconds=10) == delay_after(own, 3, 0.9)


def test_a_callable_backoff_is_given_the_failures() -> None:
    assert timedelta(seconds=9) == delay_after(lambda failures: failures**2, 3, 0.5)


def test_a_backoff_of_zero_means_at_once() -> None:
    assert timedelta(0) == delay_after(0, 1, 0.5)


@pytest.mark.parametrize("endless", [10.0**300, 10**400, math.inf, timedelta.max], ids=["float", "int", "inf", "max"])
def test_a_callable_backoff_that_explodes_is_cut_off(endless: float | timedelta) -> None:
    assert delay_after(lambda _: endless, 500, 0.5) == LONGEST_DELAY


@pytest.mark.parametrize("bad", [-1, math.nan, "soon", None, True, timedelta(seconds=-1)])
def test_a_callable_backoff_that_returns_no_duration_is_named(bad: object) -> None:
    with pytest.raises(InvalidTask, match=r"^backoff is .*: give seconds or a timedelta, from 0 to 3650 days$"):
        delay_after(lambda _: bad, 1, 0.5)  # type: ignore[arg-type]  # the wrong type is the point


def test_what_a_callable_backoff_raises_goes_through() -> None:
    with pytest.raises(ZeroDivisionError):
        delay_after(lambda failures: 1 / (failures - 1), 1, 0.5)


@pytest.mark.parametrize("value", [1.5, timedelta(milliseconds=1500)])
def test_a_duration_is_seconds_or_a_timedelta(value: float | timedelta) -> None:
    assert timedelta(milliseconds=1500) == duration("timeout", value)


@pytest.mark.parametrize("given_delay", [5, 5.0, timedelta(seconds=5)])
def test_retry_keeps_its_delay_as_a_timedelta(given_delay: float | timedelta) -> None:
    assert timedelta(seconds=5) == Retry(given_delay).in_


def test_retry_without_a_delay_leaves_it_to_the_backoff() -> None:
    assert Retry().in_ is None


def test_retry_names_its_delay_by_keyword() -> None:
    assert timedelta(minutes=1) == Retry(in_=timedelta(minutes=1)).in_


@pytest.mark.parametrize("bad", [-1, math.nan, math.inf, "1", True, timedelta(days=-1), timedelta.max])
def test_retry_refuses_what_is_no_delay(bad: object) -> None:
    with pytest.raises(InvalidTask, match=r"^in_ is .*: give seconds or a timedelta"):
        Retry(bad)  # type: ignore[arg-type]  # the wrong type is the point


def test_retry_and_cancel_show_their_reason() -> None:
    assert [str(Retry(reason="busy")), Retry(reason="busy").reason] == ["busy", "busy"]
    assert [str(Cancel("gone")), Cancel("gone").reason] == ["gone", "gone"]


@pytest.mark.parametrize("control", [Retry, Cancel])
def test_control_flow_is_no_error_of_the_package(control: type[Exception]) -> None:
    assert not issubclass(control, QueuedTasksError)
