"""How soon workers are started again."""

from __future__ import annotations

import pytest

from queued_tasks.actors import setbacks
from queued_tasks.actors.setbacks import FIRST_PAUSE, LONGEST_PAUSE, WINDOW, Setbacks
from tests.clock import Clock


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(setbacks, "time", clock)
    return clock


def pause_after(failures: int, clock: Clock) -> float:
    """How long after so many of them the next try is."""
    them = Setbacks()
    for _ in range(failures):
        them.failed()
    start = clock.now
    while not them.may_try:
        clock.now += FIRST_PAUSE / 2
    return clock.now - start


def test_the_first_try_may_be_at_once(clock: Clock) -> None:
    assert Setbacks().may_try


def test_pauses_double_up_to_the_longest(clock: Clock) -> None:
    assert [pause_after(count, clock) for count in (1, 2, 3, 20)] == [
        FIRST_PAUSE,
        2 * FIRST_PAUSE,
        4 * FIRST_PAUSE,
        LONGEST_PAUSE,
    ]


def test_when_they_are_over_the_next_pause_is_short_again(clock: Clock) -> None:
    them = Setbacks()
    for _ in range(5):
        them.failed()
    them.over()
    clock.now += LONGEST_PAUSE
    them.failed()
    clock.now += FIRST_PAUSE
    assert them.may_try


def test_the_death_of_all_workers_and_a_task_on_its_three_lives_are_not_too_many(clock: Clock) -> None:
    them = Setbacks()
    for _ in range(2 * 4 + 3):
        them.died()
    assert not them.too_many_deaths(4)
    them.died()
    assert them.too_many_deaths(4)


def test_deaths_of_long_ago_don_t_count(clock: Clock) -> None:
    them = Setbacks()
    for _ in range(20):
        them.died()
    clock.now += WINDOW + 1
    assert not them.too_many_deaths(1)
