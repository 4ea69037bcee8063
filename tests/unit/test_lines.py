"""Low-waters and how far claims look back."""

from __future__ import annotations

import pytest

from queued_tasks.runtime.lines import LATE, VERY_LATE, Line, LookBack


def test_the_low_water_is_the_highest_number_that_was_taken() -> None:
    line = Line()
    for seq in (3, 9, 5):
        line.taken(seq)
    assert line.low == 9


def test_it_is_known_where_the_low_water_stood_a_while_ago() -> None:
    line = Line()
    line.mark(10.0)
    line.taken(100)
    line.mark(11.0)
    line.taken(200)
    line.mark(12.0)
    assert [line.before(when) for when in (9.9, 10.0, 11.5, 12.0)] == [0, 0, 100, 200]


def test_it_is_known_for_as_long_as_a_long_look_reaches() -> None:
    line = Line()
    for second in range(500):
        line.mark(float(second))
        line.taken(second + 1)
    look = LookBack(30.0)
    look.done(VERY_LATE, 469.0, 0.0)
    then = 499.0 - look.reach(499.0, nearly_empty=False)
    assert line.before(then) == then == 409.0


def test_what_is_known_of_a_line_does_not_grow_without_end() -> None:
    line = Line()
    line.taken(7)
    for second in range(5_000):
        line.mark(float(second))
        assert line.before(float(second)) == 7
        assert len(line._marks) == 1
    for second in range(5_000, 10_000):
        line.taken(second)
        line.mark(float(second))
    assert len(line._marks) < 200


def test_the_first_claim_looks_back_all_the_way() -> None:
    assert LookBack(30.0).reach(5.0, nearly_empty=False) >= VERY_LATE


def test_a_claim_on_a_nearly_empty_line_always_looks_back() -> None:
    look = LookBack(30.0)
    look.done(VERY_LATE, 0.0, 0.001)
    assert look.reach(0.01, nearly_empty=True) == pytest.approx(LATE + 0.011)


def test_a_look_back_sees_what_was_late_since_the_last_one() -> None:
    look = LookBack(30.0)
    look.done(VERY_LATE, 0.2, 0.2)
    assert look.reach(5.0, nearly_empty=False) == LATE + 5
    look.done(LATE + 5, 5.01, 0.01)
    assert look.reach(6.0, nearly_empty=False) == pytest.approx(LATE + 1)


def test_under_a_backlog_most_claims_go_on_from_the_low_water() -> None:
    look = LookBack(30.0)
    look.done(VERY_LATE, 0.0, 0.001)
    assert look.reach(0.05, nearly_empty=False) == 0
    assert look.reach(0.11, nearly_empty=False) == pytest.approx(LATE + 0.111)


def test_a_costly_look_back_waits_twenty_times_as_long() -> None:
    look = LookBack(30.0)
    look.done(VERY_LATE, 0.0, 0.05)
    assert look.reach(0.9, nearly_empty=False) == 0
    assert look.reach(1.1, nearly_empty=False) == pytest.approx(LATE + 1.15)


def test_the_long_look_back_comes_once_per_interval() -> None:
    look = LookBack(30.0)
    look.done(VERY_LATE, 0.0, 0.001)
    assert look.reach(29.9, nearly_empty=False) < VERY_LATE
    assert look.reach(30.1, nearly_empty=False) == pytest.approx(VERY_LATE + 30.101)


def test_where_nearly_nothing_is_left_the_long_look_back_comes_every_second() -> None:
    look = LookBack(30.0)
    look.done(VERY_LATE, 0.0, 0.001)
    assert look.reach(0.9, nearly_empty=True) < VERY_LATE
    assert look.reach(1.1, nearly_empty=True) == pytest.approx(VERY_LATE + 1.101)
    look.done(VERY_LATE + 1.101, 1.2, 0.1)
    assert look.reach(3.1, nearly_empty=True) < VERY_LATE, "it was a costly one"
    assert look.reach(3.3, nearly_empty=True) >= VERY_LATE


@pytest.mark.parametrize("nearly_empty", [False, True])
def test_one_that_took_for_ages_puts_the_next_one_off_by_the_interval_at_most(nearly_empty: bool) -> None:
    look = LookBack(30.0)
    look.done(VERY_LATE, 0.0, 20.0)
    assert look.reach(30.1, nearly_empty=nearly_empty) >= VERY_LATE


def test_more_may_be_left_above_what_was_taken_behind_the_low_water() -> None:
    line = Line()
    line.taken(300)
    line.left(40)
    line.taken(60)
    assert line.low == 60
    line.left(100)
    assert line.low == 60
