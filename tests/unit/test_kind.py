"""What the claimer learns of its workers: how fast they are."""

from __future__ import annotations

import pytest

from queued_tasks.actors import kind as module
from queued_tasks.actors.kind import RATE_MEMORY, Kind
from tests.clock import Clock


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(module, "time", clock)
    return clock


@pytest.fixture
def kind(clock: Clock) -> Kind:
    kind = Kind(60)
    kind.joined(1, 100)
    return kind


def test_a_rate_is_known_after_the_first_ends(kind: Kind, clock: Clock) -> None:
    clock.now += 60
    kind.given(1, 100)
    clock.now += 0.01
    kind.freed(1, 50, run=True)
    assert kind.rooms[1].rate == pytest.approx(5_000)
    clock.now += 0.01
    kind.freed(1, 30, run=True)
    assert kind.rooms[1].rate == pytest.approx(4_000)
    assert kind.rooms[1].held == 20


def test_idle_time_does_not_count(kind: Kind, clock: Clock) -> None:
    for _ in range(3):
        kind.given(1, 10)
        clock.now += 0.01
        kind.freed(1, 10, run=True)
        clock.now += 3_600
    assert kind.rooms[1].rate == pytest.approx(1_000)


def test_a_rate_follows_what_happens_over_its_memory(kind: Kind, clock: Clock) -> None:
    kind.given(1, 10_000)
    for _ in range(100):
        clock.now += RATE_MEMORY / 10
        kind.freed(1, 30, run=True)
    assert kind.rooms[1].rate == pytest.approx(1_000)
    clock.now += RATE_MEMORY / 10
    kind.freed(1, 0, run=True)
    assert kind.rooms[1].rate == pytest.approx(900)


def test_what_was_given_back_says_that_nothing_is_known(kind: Kind, clock: Clock) -> None:
    kind.given(1, 100)
    clock.now += 0.01
    kind.freed(1, 50, run=True)
    kind.freed(1, 10, run=False)
    assert (kind.rooms[1].rate, kind.rooms[1].held) == (0.0, 40)
