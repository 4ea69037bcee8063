"""How many workers there should be, and when one has had its time."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from queued_tasks.runtime.scaling import MIB, Limits, Load, Wear, workers_wanted

LIMITS = Limits(least=1, most=8, idle_timeout=60)
FULL = Load(10, 10)
FREE = Load(10, 9)
IDLE = Load(10, 0, idle=61)

loads = st.lists(
    st.builds(
        Load,
        slots=st.integers(1, 100),
        busy=st.integers(0, 200),
        idle=st.floats(0, 200),
        cpu=st.floats(0, 2),
        blocked=st.booleans(),
    ),
    max_size=20,
)
limits = st.builds(
    lambda least, more, idle: Limits(least, least + more, idle),
    st.integers(0, 5),
    st.integers(0, 10),
    st.floats(1, 100),
)


@given(loads, st.integers(0, 5), limits, st.booleans())
def test_the_number_is_within_its_limits(loads: list[Load], starting: int, limits: Limits, waiting: bool) -> None:
    assert limits.least <= workers_wanted(loads, starting, limits, waiting=waiting) <= limits.most


@given(loads, limits)
def test_nothing_grows_while_nothing_waits_and_nobody_is_strained(loads: list[Load], limits: Limits) -> None:
    calm = [Load(load.slots, load.busy, load.idle) for load in loads]
    assert workers_wanted(calm, 0, limits, waiting=False) <= max(len(calm), limits.least)


def test_the_number_doubles_while_tasks_wait_and_no_slot_is_free() -> None:
    assert [workers_wanted([FULL] * count, 0, LIMITS, waiting=True) for count in (1, 2, 4, 8)] == [2, 4, 8, 8]


def test_a_free_slot_is_enough_for_what_waits() -> None:
    assert workers_wanted([FULL, FREE], 0, LIMITS, waiting=True) == 2


def test_full_slots_are_enough_when_nothing_waits() -> None:
    assert workers_wanted([FULL, FULL], 0, LIMITS, waiting=False) == 2


def test_a_step_waits_for_those_on_their_way() -> None:
    assert workers_wanted([FULL, FULL], 2, LIMITS, waiting=True) == 4


def test_the_first_worker_of_a_kind_is_started_for_the_first_task() -> None:
    none = Limits(0, 8, 60)
    assert [workers_wanted([], 0, none, waiting=waiting) for waiting in (False, True)] == [0, 1]


def test_a_worker_that_uses_up_its_cpu_has_no_use_for_its_free_slots() -> None:
    assert workers_wanted([Load(10, 1, cpu=0.95)], 0, LIMITS, waiting=False) == 2


def test_an_idle_worker_that_works_on_something_of_its_own_needs_no_other() -> None:
    assert workers_wanted([Load(10, 0, cpu=0.95)], 0, LIMITS, waiting=False) == 1


def test_a_blocked_worker_has_no_use_for_its_free_slots() -> None:
    assert workers_wanted([Load(10, 1, blocked=True)], 0, LIMITS, waiting=False) == 2


def test_it_shrinks_one_by_one() -> None:
    assert workers_wanted([IDLE, IDLE, IDLE, FREE], 0, LIMITS, waiting=False) == 3


@pytest.mark.parametrize("load", [Load(10, 0, idle=59), Load(10, 1, idle=0)])
def test_who_was_wanted_lately_stays(load: Load) -> None:
    assert workers_wanted([load, load], 0, LIMITS, waiting=False) == 2


def test_the_last_ones_stay_however_idle_they_are() -> None:
    assert workers_wanted([IDLE, IDLE], 0, Limits(2, 8, 60), waiting=False) == 2


def test_what_has_grown_does_not_shrink_before_the_timeout() -> None:
    grown = workers_wanted([FULL], 0, LIMITS, waiting=True)
    assert workers_wanted([Load(10, 0, idle=1)] * grown, 0, LIMITS, waiting=False) == grown


def test_a_lower_maximum_counts_at_once() -> None:
    assert workers_wanted([FULL] * 8, 2, Limits(1, 3, 60), waiting=True) == 3


@pytest.mark.parametrize(
    ("tasks", "memory", "reason"),
    [
        (99, 100 * MIB, None),
        (100, 100 * MIB, "it has run 100 tasks"),
        (99, 101 * MIB, "it holds 101 MiB, its limit is 100 MiB"),
    ],
)
def test_a_worker_has_had_its_time_after_so_many_tasks_or_with_so_much_memory(
    tasks: int, memory: int, reason: str | None
) -> None:
    assert Wear(100, 100 * MIB).of(tasks, memory) == reason


def test_without_limits_a_worker_stays_for_ever() -> None:
    assert Wear().of(10**9, 10**12) is None
    assert not Wear().is_far_exceeded(10**12)


def test_twice_the_memory_is_far_too_much() -> None:
    assert [Wear(memory=MIB).is_far_exceeded(memory) for memory in (2 * MIB, 2 * MIB + 1)] == [False, True]
