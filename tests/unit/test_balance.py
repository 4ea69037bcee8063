"""Who takes how much, and where."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from queued_tasks.runtime.balance import AHEAD_MOST, Room, place, wanted

rooms = st.dictionaries(
    st.integers(1, 8),
    st.builds(Room, slots=st.integers(1, 50), held=st.integers(0, 500), rate=st.floats(0, 100_000)),
    max_size=6,
)


def test_idle_workers_of_one_size_get_equal_parts() -> None:
    placed = Counter(place(10, {1: Room(100), 2: Room(100)}))
    assert placed == {1: 5, 2: 5}


def test_the_least_busy_worker_is_served_first() -> None:
    assert place(2, {1: Room(10, held=5), 2: Room(10)}) == [2, 2]


def test_a_worker_with_twice_the_slots_gets_twice_as_much() -> None:
    placed = Counter(place(30, {1: Room(10), 2: Room(20)}))
    assert placed == {1: 10, 2: 20}


@given(rooms, st.integers(0, 2_000))
def test_nobody_gets_more_than_it_has_room_for(rooms: dict[int, Room], count: int) -> None:
    placed = Counter(place(count, rooms))
    assert all(placed[worker] <= rooms[worker].free for worker in placed)
    assert placed.total() == min(count, sum(room.free for room in rooms.values()))


@given(rooms)
def test_nothing_is_claimed_that_nobody_has_room_for(rooms: dict[int, Room]) -> None:
    assert 0 <= wanted(rooms) <= sum(room.free for room in rooms.values())


def test_a_single_free_slot_of_long_tasks_is_worth_a_claim() -> None:
    assert wanted({1: Room(100, held=99, rate=0.5)}) == 1


def test_a_worker_of_very_short_tasks_gets_some_ahead() -> None:
    assert Room(100, held=100, rate=5_000).free == 100


def test_what_is_given_ahead_is_bounded() -> None:
    assert Room(100, rate=1e9).ahead == AHEAD_MOST


def test_a_claim_waits_while_the_workers_have_most_of_it_ahead_of_them() -> None:
    assert wanted({1: Room(100, held=450, rate=1e9)}) == 0
