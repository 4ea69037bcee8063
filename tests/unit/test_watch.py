"""Which servers are given up."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from datetime import UTC, datetime, timedelta
from uuid import uuid4

import pytest

from queued_tasks.actors.keeper import BEAT_EVERY
from queued_tasks.actors.watch import LOOK_EVERY, LOOKS, WATCHED, Watch
from queued_tasks.runtime.store.servers import Peer
from queued_tasks.runtime.task import ServerId

TTL = 15.0
OWN, OTHER = ServerId(uuid4()), ServerId(uuid4())
START = datetime(2026, 1, 1, tzinfo=UTC)
LOCK = 7


class Cluster:
    """What one server hears and sees of another one that beats when it is told to. Times are seconds from its start."""

    def __init__(self) -> None:
        self._watch = Watch(OWN, TTL)
        self._beat_at = self._heard_at = self._hear_at = 0.0
        self.now = 0.0
        self.clock = 0.0  # seconds by which the database's is ahead
        self.free = False
        self.lock: int | None = LOCK
        self._row = START

    def beat(self) -> None:
        """The other one beats."""
        self._beat_at = self.now
        self._row = START + timedelta(seconds=self.now + self.clock)

    def hear(self) -> None:
        """One's own beat brings its row."""
        silent_for = (START - self._row).total_seconds() + self.now + self.clock
        self._watch.hear([Peer(OTHER, "other", "running", 100, 0, self._row, self.lock, silent_for)], self.now)

    def look(self) -> list[Peer]:
        """One look; whoever is lost."""
        locks = self._watch.locks()
        self._watch.look({id: self._row for id in locks if self.free}, self.now)
        return self._watch.lost(self.now)

    def spend(self, seconds: float, *, beats: Callable[[float], bool] = lambda _: False) -> float | None:
        """Hear and look as a server does, while the other one beats when `beats` says so; when it was given up."""
        end = self.now + seconds
        while self.now < end:
            self.now += LOOK_EVERY
            if beats(self.now):
                self.beat()
            if self.now - self._hear_at >= BEAT_EVERY:
                self._hear_at = self.now
                self.hear()
            if self.look():
                return self.now
        return None


def every(seconds: float) -> Callable[[float], bool]:
    return lambda now: now % seconds == 0


def never(_now: float) -> bool:
    return False


@pytest.fixture
def cluster() -> Cluster:
    """Two servers that have beaten for ten seconds."""
    cluster = Cluster()
    cluster.hear()
    assert cluster.spend(10, beats=every(BEAT_EVERY)) is None
    return cluster


def test_a_killed_server_is_lost_within_three_seconds(cluster: Cluster) -> None:
    killed_at, cluster.free = cluster.now, True
    lost_at = cluster.spend(TTL)
    assert lost_at is not None
    assert lost_at - killed_at <= 3.0


def test_a_server_whose_session_was_cut_is_left_alone_while_it_beats(cluster: Cluster) -> None:
    cluster.free = True
    assert cluster.spend(60, beats=every(BEAT_EVERY)) is None


def test_six_looks_in_a_row_take_longer_than_a_live_server_is_silent() -> None:
    assert (LOOKS - 1) * LOOK_EVERY > BEAT_EVERY


def test_one_look_that_finds_the_lock_held_clears_a_server(cluster: Cluster) -> None:
    cluster.free = True
    assert cluster.spend((LOOKS - 1) * LOOK_EVERY) is None
    cluster.free = False
    assert cluster.spend(LOOK_EVERY) is None
    cluster.free = True
    assert cluster.spend((LOOKS - 1) * LOOK_EVERY) is None
    assert cluster.spend(LOOK_EVERY) is not None


def test_a_beat_that_a_look_sees_clears_a_server_before_it_is_heard_of(cluster: Cluster) -> None:
    cluster.free = True
    assert cluster.spend((LOOKS - 1) * LOOK_EVERY) is None
    cluster.beat()
    assert cluster.spend((LOOKS - 1) * LOOK_EVERY) is None


def test_the_last_beat_before_a_death_delays_nothing_when_it_is_heard_of_later(cluster: Cluster) -> None:
    cluster.spend(0.5)
    cluster.beat()
    killed_at, cluster.free = cluster.now, True
    lost_at = cluster.spend(TTL)
    assert lost_at is not None
    assert lost_at - killed_at <= 3.0


def test_a_live_server_survives_that_postgresql_ends_all_sessions_and_is_away_for_a_moment(cluster: Cluster) -> None:
    cluster.free = True
    cluster.look()
    cluster.now += 5.0
    assert cluster.spend(2.0, beats=never) is None


def test_a_silent_server_that_holds_its_lock_has_its_time_to_live(cluster: Cluster) -> None:
    silent_from = cluster.now
    lost_at = cluster.spend(60)
    assert lost_at is not None
    assert TTL < lost_at - silent_from <= TTL + LOOK_EVERY


def test_a_server_behind_a_pooler_has_no_lock_and_only_its_age_counts(cluster: Cluster) -> None:
    cluster.now += 1
    cluster.beat()
    cluster.lock, cluster.free = None, True
    cluster.hear()
    assert cluster.spend(TTL) is None


def test_after_an_outage_nobody_is_lost_by_its_age_alone(cluster: Cluster) -> None:
    cluster.now += 300
    assert cluster.look() == []
    assert cluster.spend(TTL - 1) is None


@pytest.mark.parametrize("jump", [3600.0, -3600.0], ids=["ahead", "back"])
def test_a_jump_of_the_databases_clock_makes_nobody_look_dead(cluster: Cluster, jump: float) -> None:
    cluster.clock = jump
    cluster.hear()
    assert cluster.spend(60, beats=every(BEAT_EVERY)) is None


@pytest.mark.parametrize("jump", [3600.0, -3600.0], ids=["ahead", "back"])
@pytest.mark.parametrize("free", [True, False], ids=["killed", "unreachable"])
def test_a_jump_of_the_databases_clock_hides_no_death(cluster: Cluster, jump: float, free: bool) -> None:
    cluster.clock, cluster.free = jump, free
    cluster.beat()
    died_at = cluster.now
    lost_at = cluster.spend(60)
    assert lost_at is not None
    assert lost_at - died_at <= (3.0 if free else TTL + LOOK_EVERY)


def test_a_server_that_stood_still_gives_nobody_up_for_what_it_did_not_see(cluster: Cluster) -> None:
    cluster.free = True
    cluster.spend((LOOKS - 1) * LOOK_EVERY)
    cluster.now += 30
    assert cluster.look() == []


def test_a_server_does_not_give_itself_up() -> None:
    watch = Watch(OTHER, TTL)
    watch.hear(_self(), 0.0)
    assert watch.locks() == {}
    assert watch.lost(5.0) == []


def _self() -> Iterable[Peer]:
    return [Peer(OTHER, "self", "running", 100, 0, START, LOCK, 60.0)]


def _looks_of_many(alive: Iterable[ServerId], there: Iterable[ServerId]) -> Counter[ServerId]:
    """How many of those that are alive look at each server whose row is there."""
    peers = [Peer(id, "peer", "running", 100, 0, START, LOCK, 0.0) for id in there]
    looks: Counter[ServerId] = Counter()
    for id in alive:
        watch = Watch(id, TTL)
        watch.hear(peers, 0.0)
        looks.update(watch.locks().keys())
    return looks


def test_among_many_servers_each_is_looked_at_by_so_many() -> None:
    ids = [ServerId(uuid4()) for _ in range(100)]
    assert _looks_of_many(ids, ids) == dict.fromkeys(ids, WATCHED)


def test_the_dead_are_looked_at_however_many_they_are() -> None:
    dead, survivor = [ServerId(uuid4()) for _ in range(100)], ServerId(uuid4())
    while dead:
        seen = _looks_of_many([survivor], [survivor, *dead])
        assert len(seen) == min(WATCHED, len(dead))
        dead = [id for id in dead if id not in seen]
