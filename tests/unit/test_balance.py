"""Who takes how much, and where."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from queued_tasks.runtime.balance import AHEAD_MOST, AHEAD_SECONDS, Room, pace, place, shares, wanted

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
    assert Room(100, held=100, rate=5_000).free == 5_000 * AHEAD_SECONDS


def test_what_is_given_ahead_is_bounded() -> None:
    assert Room(100, rate=1e9).ahead == AHEAD_MOST


def test_a_claim_waits_while_the_workers_have_most_of_it_ahead_of_them() -> None:
    assert wanted({1: Room(100, held=100 + AHEAD_MOST // 2, rate=1e9)}) == 0


def test_a_worker_that_does_not_answer_is_given_nothing() -> None:
    rooms = {1: Room(10, rate=1_000, open=False), 2: Room(10, held=9)}
    assert (wanted(rooms), place(5, rooms)) == (1, [2])


# ---- between servers

shared = st.dictionaries(st.sampled_from("abcdef"), st.integers(0, 200).map(float), min_size=1)


def test_equal_servers_share_equally() -> None:
    assert shares(10, {"a": 10.0, "b": 10.0}, "") == {"a": 5, "b": 5}


def test_a_server_with_twice_the_room_takes_twice_as_much() -> None:
    assert shares(9, {"a": 20.0, "b": 10.0}, "") == {"a": 6, "b": 3}


def test_a_full_server_takes_nothing() -> None:
    assert shares(3, {"a": 0.0, "b": 10.0}, "") == {"a": 0, "b": 3}


def test_a_big_backlog_fills_everybody() -> None:
    taken = shares(1_000, {"a": 20.0, "b": 10.0}, "")
    assert taken["a"] >= 20
    assert taken["b"] >= 10


def test_single_tasks_go_round_among_equals() -> None:
    takers = Counter(
        server
        for turn in range(300)
        for server, count in shares(1, {"a": 10.0, "b": 10.0, "c": 10.0}, f"#1.{turn}").items()
        if count
    )
    assert min(takers.values()) > 60


def test_what_cannot_be_divided_stays_with_the_one_who_set_it_free() -> None:
    assert shares(1, {"a": 10.0, "b": 10.0}, "", first="b") == {"a": 0, "b": 1}


@given(shared, st.integers(1, 500), st.text(max_size=5))
def test_all_servers_come_to_the_same_shares_which_are_all_that_came(
    rooms: dict[str, float], count: int, turn: str
) -> None:
    taken = shares(count, rooms, turn)
    assert taken == shares(count, dict(reversed(rooms.items())), turn)
    assert sum(taken.values()) == (count if any(rooms.values()) else 0)
    assert all(not taken[server] for server in rooms if not rooms[server])


def test_a_host_whose_processes_wait_for_processors_is_slower() -> None:
    assert pace(0.0, 2) == pace(2.0, 2) == 1.0
    assert pace(4.0, 2) == 0.5
