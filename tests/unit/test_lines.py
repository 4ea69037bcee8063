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


def test_marks_from_before_anything_can_be_under_way_are_forgotten_but_for_one() -> None:
    line = Line()
    for second in range(500):
        line.mark(float(second))
        line.taken(second + 1)
    assert line.before(499.0 - VERY_LATE) == 499 - VERY_LATE
    assert line.before(0.0) == 0


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


def test_more_may_be_left_above_what_was_taken_behind_the_low_water() -> None:
    line = Line()
    line.taken(300)
    line.left(40)
    line.taken(60)
    assert line.low == 60
    line.left(100)
    assert line.low == 60
