"""Due times: both daylight-saving edges, missed ones, and expressions that are none."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import islice, pairwise, takewhile

import pytest
from hypothesis import given
from hypothesis import strategies as st

from queued_tasks.runtime.cron import GRACE, MOST_MADE_UP, Cron, Plan
from queued_tasks.runtime.errors import ConfigurationError

BERLIN = "Europe/Berlin"
NEW_YORK = "America/New_York"
MINUTELY = Cron("* * * * *", "UTC")
DAILY = Cron("0 8 * * *", "UTC")
NOON = datetime(2026, 6, 1, 12, tzinfo=UTC)


def at(hour: int, minute: int = 0, *, day: int = 1) -> datetime:
    return datetime(2026, 6, day, hour, minute, tzinfo=UTC)


def on_the_wall(expression: str, zone: str, start: datetime, hours: int) -> list[str]:
    """The due times within so many hours, as a clock there shows them."""
    cron = Cron(expression, zone)
    due = takewhile(lambda each: each <= start + timedelta(hours=hours), cron.after(start))
    return [f"{each.astimezone(cron.zone):%H:%M%z}" for each in due]


SPRING = datetime(2026, 3, 28, 23, 30, tzinfo=UTC)  # 00:30 in Berlin; 02:00 becomes 03:00
AUTUMN = datetime(2026, 10, 24, 22, 30, tzinfo=UTC)  # 00:30 in Berlin; 03:00 becomes 02:00


@pytest.mark.parametrize(
    ("expression", "due"),
    [
        ("30 2 * * *", ["03:00+0200"]),
        ("0,30 2 * * *", ["03:00+0200"]),
        ("0,30 2,3 * * *", ["03:00+0200", "03:30+0200"]),
        ("*/30 2 * * *", []),
        ("0 * * * *", ["01:00+0100", "03:00+0200", "04:00+0200"]),
        ("*/30 1-3 * * *", ["01:00+0100", "01:30+0100", "03:00+0200", "03:30+0200"]),
    ],
)
def test_a_fixed_time_in_the_skipped_hour_is_due_once_right_after_it(expression: str, due: list[str]) -> None:
    assert on_the_wall(expression, BERLIN, SPRING, 3) == due


@pytest.mark.parametrize(
    ("expression", "due"),
    [
        ("30 2 * * *", ["02:30+0200"]),
        ("0 1-3 * * *", ["01:00+0200", "02:00+0200", "03:00+0100"]),
        ("*/30 2 * * *", ["02:00+0200", "02:30+0200", "02:00+0100", "02:30+0100"]),
        ("0 * * * *", ["01:00+0200", "02:00+0200", "02:00+0100", "03:00+0100"]),
    ],
)
def test_a_fixed_time_in_the_repeated_hour_is_due_the_first_time_only(expression: str, due: list[str]) -> None:
    assert on_the_wall(expression, BERLIN, AUTUMN, 4) == due


def test_a_fixed_time_is_not_due_again_when_looked_for_within_the_repeated_hour() -> None:
    second_pass = datetime(2026, 10, 25, 1, 15, tzinfo=UTC)  # 02:15 in Berlin, for the second time
    assert Cron("30 2 * * *", BERLIN).next_after(second_pass) == datetime(2026, 10, 26, 1, 30, tzinfo=UTC)


def test_the_hour_of_the_day_stays_when_its_instant_moves() -> None:
    cron = Cron("0 8 * * *", NEW_YORK)
    days = islice(cron.after(datetime(2026, 3, 7, tzinfo=UTC)), 3)
    assert [f"{each:%d %H:%M}" for each in days] == ["07 13:00", "08 12:00", "09 12:00"]


@given(
    st.sampled_from(["* * * * *", "*/7 * * * *", "30 2 * * *", "0,30 1-3 * * *", "15 */2 * * *"]),
    st.sampled_from([BERLIN, NEW_YORK, "Asia/Kolkata", "Australia/Sydney", "UTC"]),
    st.datetimes(datetime(2020, 1, 1), datetime(2030, 1, 1)),
)
def test_due_times_only_ever_grow(expression: str, zone: str, start: datetime) -> None:
    instant = start.replace(tzinfo=UTC)
    due = [instant, *islice(Cron(expression, zone).after(instant), 60)]
    assert all(earlier < later for earlier, later in pairwise(due))


@given(
    st.sampled_from(["*/5 * * * *", "30 2 * * *", "0 8 * * 1"]),
    st.datetimes(datetime(2026, 1, 1), datetime(2027, 1, 1)),
    st.integers(0, 20_000),
    st.integers(1, 40),
)
def test_the_last_due_times_are_those_that_a_walk_through_all_of_them_finds(
    expression: str, start: datetime, minutes: int, limit: int
) -> None:
    cron, after = Cron(expression, BERLIN), start.replace(tzinfo=UTC)
    until = after + timedelta(minutes=minutes)
    everything = list(takewhile(lambda each: each <= until, cron.after(after)))
    assert cron.due_between(after, until, limit) == everything[-limit:]


def test_a_look_back_over_many_years_is_bounded() -> None:
    due = MINUTELY.due_between(datetime(1990, 1, 1, tzinfo=UTC), NOON, 3)
    assert due == [at(11, 58), at(11, 59), at(12)]


# ---- what was missed


def test_what_is_late_by_no_more_than_the_grace_is_fired() -> None:
    assert DAILY.plan(at(7), at(8) + GRACE, catch_up=False) == Plan(None, (at(8),))


def test_what_is_later_than_the_grace_is_skipped() -> None:
    late = at(8) + GRACE + timedelta(microseconds=1)
    assert DAILY.plan(at(7), late, catch_up=False) == Plan(at(8), ())


def test_all_that_was_missed_is_one_skip_and_what_is_due_now_is_fired() -> None:
    now = at(12) + timedelta(seconds=1)
    assert MINUTELY.plan(at(9), now, catch_up=False) == Plan(at(11, 59), (at(12),))


def test_what_was_missed_is_made_up_for_in_order() -> None:
    plan = DAILY.plan(at(8), at(9, day=4), catch_up=True)
    assert plan == Plan(None, (at(8, day=2), at(8, day=3), at(8, day=4)))


def test_no_more_than_the_last_thousand_are_made_up_for() -> None:
    plan = MINUTELY.plan(NOON - timedelta(days=30), NOON, catch_up=True)
    first = NOON - timedelta(minutes=MOST_MADE_UP - 1)
    assert (plan.skip, plan.fires[0], plan.fires[-1]) == (first - timedelta(minutes=1), first, NOON)


@pytest.mark.parametrize("catch_up", [True, False])
def test_where_nothing_was_due_nothing_follows(catch_up: bool) -> None:
    assert DAILY.plan(at(8), at(20), catch_up=catch_up) == Plan(None, ())


# ---- expressions and zones


@pytest.mark.parametrize(
    "expression",
    ["", "* * * *", "0 0 * * * *", "61 * * * *", "x * * * *", "*/0 * * * *", "5-1 * * * *", "@daily", "0 0 30 2 *"],
)
def test_what_is_no_expression_is_refused(expression: str) -> None:
    with pytest.raises(ConfigurationError, match="cron is"):
        Cron(expression, "UTC")


@given(st.text(alphabet="0123456789*/-,LW#MONJAN \n\0", max_size=40))
def test_any_text_is_an_expression_or_a_configuration_error(text: str) -> None:
    try:
        cron = Cron(text, "UTC")
    except ConfigurationError:
        return
    assert cron.next_after(NOON) > NOON


def test_a_hostile_expression_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="five fields"):
        Cron(f"{'*/1' * 2000} * * * *", "UTC")


@pytest.mark.parametrize("zone", ["Europe/Nowhere", "", "/etc/passwd", "../UTC", "America", "a\0b", None, 1])
def test_what_is_no_time_zone_is_refused(zone: str) -> None:
    with pytest.raises(ConfigurationError, match="timezone is"):
        Cron("* * * * *", zone)
