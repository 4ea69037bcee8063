"""What a server leaves to its peers when new tasks come."""

from __future__ import annotations

import math
from datetime import UTC, datetime
from uuid import UUID

import pytest

from queued_tasks.actors.sharing import LONGEST_HOLD, SHORTEST_HOLD, Sharing
from queued_tasks.runtime.intake import ALL, Intake
from queued_tasks.runtime.store.servers import Peer
from queued_tasks.runtime.task import ServerId

GPU, REST = Intake(only=("gpu",)), Intake(never=("gpu",))
ME, OTHER, THIRD = (ServerId(UUID(int=number)) for number in (1, 2, 3))


def peer(id: ServerId, free: int, state: str = "running", pace: float = 1.0, intake: Intake = ALL) -> Peer:
    return Peer(id, "peer", state, 10, 10 - free, datetime.now(UTC), None, 0.0, pace, intake)


def sharing(*peers: Peer, intake: Intake = ALL) -> Sharing:
    ours = Sharing(ME)
    ours.hear([peer(ME, 10, intake=intake), *peers])
    for _ in range(20):
        ours.took(0, 0.0001)
    return ours


def test_a_lonely_server_holds_back_nothing() -> None:
    ours = sharing()
    assert not ours.woken(1, "#1.1", 10, 1.0, 100.0)
    assert ours.limit(100.0) == math.inf


def test_servers_that_take_nothing_are_no_company() -> None:
    assert not sharing(peer(OTHER, 10, "draining"), peer(THIRD, 0)).woken(1, "#1.1", 10, 1.0, 100.0)


@pytest.mark.parametrize(("mine", "theirs"), [(REST, GPU), (GPU, REST)])
def test_servers_that_take_no_channel_of_this_one_are_no_company(mine: Intake, theirs: Intake) -> None:
    ours = sharing(peer(OTHER, 10, intake=theirs), intake=mine)
    assert not ours.woken(1, "#1.1", 10, 1.0, 100.0)
    assert ours.limit(100.0) == math.inf


def test_servers_that_take_some_channel_of_this_one_are_company() -> None:
    ours = sharing(peer(OTHER, 10, intake=GPU), peer(THIRD, 10, intake=REST), intake=REST)
    assert ours.woken(10, "#1.1", 10, 1.0, 100.0)
    assert ours.limit(100.0) == 5


def test_two_equal_servers_take_half_each_and_the_rest_after_a_while() -> None:
    ours = sharing(peer(OTHER, 10))
    assert ours.woken(10, "#1.1", 10, 1.0, 100.0)
    assert ours.limit(100.0) == 5
    ours.took(3, 0.0)
    assert ours.limit(100.0) == 2
    assert ours.limit(100.0 + SHORTEST_HOLD) == math.inf


def test_wake_ups_during_a_hold_add_to_the_share_and_do_not_lengthen_it() -> None:
    ours = sharing(peer(OTHER, 10))
    assert ours.woken(4, "#1.1", 10, 1.0, 100.0)
    assert not ours.woken(4, "#1.2", 10, 1.0, 100.0 + SHORTEST_HOLD / 2)
    assert ours.limit(100.0 + SHORTEST_HOLD / 2) == 4
    assert ours.limit(100.0 + SHORTEST_HOLD) == math.inf


def test_ten_single_tasks_are_five_for_each_of_two() -> None:
    ours, theirs = sharing(peer(OTHER, 10, pace=0.2)), Sharing(OTHER)
    theirs.hear([peer(ME, 10, pace=0.2), peer(OTHER, 10)])
    rooms = [10, 10]
    for turn in range(10):
        now = 100.0 + turn
        ours.woken(1, f"#1.{turn}", rooms[0], 0.2, now)
        theirs.woken(1, f"#1.{turn}", rooms[1], 0.2, now)
        assert ours.limit(now) + theirs.limit(now) == 1
        rooms[0] -= int(ours.limit(now))
        rooms[1] -= int(theirs.limit(now))
    assert rooms == [5, 5]


def test_who_set_a_task_free_takes_it() -> None:
    ours = sharing(peer(OTHER, 10))
    ours.woken(1, "", 10, 1.0, 100.0)
    assert ours.limit(100.0) == 1


def test_a_wake_up_without_a_count_holds_back_nothing() -> None:
    assert not sharing(peer(OTHER, 10)).woken(0, "", 10, 1.0, 100.0)


def test_where_claims_take_long_the_others_get_longer() -> None:
    ours = sharing(peer(OTHER, 10))
    for _ in range(10):
        ours.took(0, 0.005)
    assert 0.05 < ours.woken(1, "#1.1", 10, 1.0, 100.0) < 0.15
    ours.took(0, 60.0)
    assert ours.woken(1, "#1.1", 10, 1.0, 200.0) == LONGEST_HOLD


def test_a_peer_that_is_slow_to_start_gets_less() -> None:
    ours = sharing(peer(OTHER, 10, pace=0.25))
    ours.woken(10, "#1.1", 10, 1.0, 100.0)
    assert ours.limit(100.0) == 8
