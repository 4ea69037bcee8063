"""Low-waters and how far claims look back."""

from __future__ import annotations

import math

from queued_tasks.runtime.lines import LATE, VERY_LATE, Line, LookBack


def test_the_low_water_is_the_highest_number_that_was_taken() -> None:
    line = Line()
    for seq in (3, 9, 5, 0):
        line.taken(seq, 0.0, 10.0)
    assert line.start(0.0, 10.0) == 9


def test_a_look_reads_from_where_the_low_water_stood_before_the_last_one() -> None:
    line = Line()
    for second in range(100, 200):
        line.start(0.0, float(second))
        line.taken(second, LATE if second % 10 == 0 else 0.0, float(second))
    assert line.start(LATE, 200.0) == 190 - LATE - 1  # what was taken then was so after the mark
    assert line.start(VERY_LATE, 200.0) == line.start(math.inf, 200.0) == 0
    line.taken(200, VERY_LATE, 190.0)
    assert line.start(VERY_LATE, 201.0) == 190 - VERY_LATE - 1
    assert line.start(0.0, 201.0) == 200


def test_a_look_that_took_nothing_here_does_not_count() -> None:
    line = Line()
    line.start(LATE, 100.0)
    line.taken(7, LATE, 100.0)
    for second in range(101, 1_000):
        assert line.start(LATE, float(second)) == 0, "nobody knows whether the channel let anybody look"


def test_what_is_taken_behind_the_low_water_lowers_it() -> None:
    line = Line()
    line.start(0.0, 10.0)
    line.taken(300, 0.0, 10.0)
    line.start(LATE, 11.0)
    line.taken(60, LATE, 11.0)
    assert line.start(0.0, 12.0) == 60
    line.taken(310, 0.0, 12.0)
    assert line.start(LATE, 13.0) == 0, "it reaches to before the last look"
    line.taken(320, LATE, 13.0)
    assert line.start(LATE, 14.0) == 60, "though it rose at once"


def test_what_is_taken_in_the_turn_of_its_key_says_nothing_of_the_line() -> None:
    line = Line()
    line.start(0.0, 10.0)
    line.taken(300, LATE, 10.0)
    line.start(LATE, 11.0)
    line.taken(0, LATE, 11.0)
    assert line.start(0.0, 12.0) == 300
    assert line.start(LATE, 12.0) == 0


def test_how_far_the_newcomers_were_read_is_shown_below_zero() -> None:
    line = Line()
    line.start(0.0, 10.0)
    line.taken(-300, 0.0, 10.0)
    line.start(0.0, 11.0)
    line.taken(-400, LATE, 11.0)
    assert line.start(0.0, 12.0) == -400
    assert line.start(LATE, 12.0) == -1, "0 would have the claim look at the line as well"
    line.taken(0, LATE, 12.5)
    assert line.start(0.0, 12.6) == -400
    line.taken(-350, LATE, 12.6)
    assert line.start(0.0, 12.7) == -350


def test_a_full_pass_is_owed_until_its_channel_has_let_one_through() -> None:
    line = Line()
    line.start(0.0, 10.0)
    line.taken(-300, 0.0, 10.0)
    assert [line.start(reach, 11.0) for reach in (0.0, math.inf, 0.0, LATE)] == [-300, 0, 0, 0]
    line.taken(0, 0.0, 12.0)
    assert line.start(0.0, 12.0) == 0
    assert line.start(0.0, 12.0, claims=False) == -300
    line.taken(-300, 0.0, 13.0)
    assert line.start(0.0, 13.0) == -300
    assert line.start(math.inf, 13.0, claims=False) == 0
    assert line.start(0.0, 13.0) == -300, "nobody would ever hear what came of that look"


def test_a_channel_that_gets_a_limit_per_key_or_loses_it_is_read_from_the_start() -> None:
    line = Line()
    line.start(0.0, 10.0)
    line.taken(9_000, 0.0, 10.0)
    line.start(0.0, 11.0)
    line.taken(-50, 0.0, 11.0)
    assert line.start(0.0, 12.0) == -50
    line.taken(-60, LATE, 12.0)
    assert line.start(LATE, 12.5) == -1, "what was known before is of something else"
    line.taken(70, 0.0, 13.0)
    assert line.start(0.0, 13.0) == 70


def test_what_is_known_of_a_line_does_not_grow_without_end() -> None:
    line = Line()
    for second in range(10_000):
        line.start(0.0, float(second))
        line.taken(second, VERY_LATE if second < 5_000 else 0.0, float(second))
        if second == 4_999:
            assert len(line._marks) < 100
    assert len(line._marks) == 2_000
    assert line.start(VERY_LATE, 10_000.0) == 0


def test_the_first_claim_reads_from_the_start() -> None:
    assert LookBack(30.0).reach(5.0, nearly_empty=False) == math.inf


def test_a_claim_on_a_nearly_empty_line_always_looks_back() -> None:
    look = LookBack(30.0)
    look.done(math.inf, 0.0, 0.001)
    assert look.reach(0.01, nearly_empty=True) == LATE


def test_under_a_backlog_most_claims_go_on_from_the_low_water() -> None:
    look = LookBack(30.0)
    look.done(math.inf, 0.0, 0.001)
    assert look.reach(0.05, nearly_empty=False) == 0
    assert look.reach(0.11, nearly_empty=False) == LATE


def test_a_costly_look_back_waits_twenty_times_as_long() -> None:
    look = LookBack(30.0)
    look.done(math.inf, 0.0, 0.05)
    assert look.reach(0.9, nearly_empty=False) == 0
    assert look.reach(1.1, nearly_empty=False) == LATE


def test_where_nearly_nothing_is_left_a_long_look_comes_every_second() -> None:
    look = LookBack(30.0)
    look.done(math.inf, 0.0, 0.001)
    assert look.reach(0.9, nearly_empty=True) == LATE
    assert look.reach(1.1, nearly_empty=True) == VERY_LATE
    look.done(VERY_LATE, 1.2, 0.1)
    assert look.reach(3.1, nearly_empty=True) == LATE, "it was a costly one"
    assert look.reach(3.3, nearly_empty=True) == VERY_LATE


def test_once_per_interval_one_reads_from_the_start() -> None:
    look = LookBack(30.0)
    look.done(math.inf, 0.0, 0.001)
    look.done(VERY_LATE, 29.9, 0.001)
    assert look.reach(29.9, nearly_empty=False) < math.inf
    assert look.reach(30.1, nearly_empty=False) == math.inf


def test_one_that_took_for_ages_does_not_put_the_next_ones_off_for_ages() -> None:
    look = LookBack(30.0)
    look.done(math.inf, 0.0, 20.0)
    assert look.reach(30.1, nearly_empty=False) == LATE
    assert look.reach(30.1, nearly_empty=True) == VERY_LATE
    assert look.reach(299.9, nearly_empty=False) < math.inf
    assert look.reach(300.1, nearly_empty=False) == math.inf
