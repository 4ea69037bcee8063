"""Which servers are given up."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from uuid import UUID, uuid4

from queued_tasks.actors.watch import Watch
from queued_tasks.runtime.store.servers import Peer
from queued_tasks.runtime.task import ServerId

TTL = 15.0
START = datetime(2026, 1, 1, tzinfo=UTC)


def peer(id: UUID, *, silent_for: float = 0.1, beat: int = 0, lock_key: int | None = 7) -> Peer:
    return Peer(ServerId(id), "peer", "running", 100, 0, START + timedelta(seconds=2 * beat), lock_key, silent_for)


async def free(_key: int) -> bool:
    return True


async def held(_key: int) -> bool:
    return False


async def test_a_server_that_beats_is_left_alone() -> None:
    watch, id = Watch(ServerId(uuid4()), TTL), uuid4()
    for second in range(60):
        watch.hear([peer(id, beat=second)], float(second))
        assert await watch.lost(float(second), free) == []


async def test_a_silent_server_whose_lock_is_free_in_two_looks_is_lost() -> None:
    watch, id = Watch(ServerId(uuid4()), TTL), uuid4()
    watch.hear([peer(id, silent_for=2.6)], 100.0)
    assert await watch.lost(100.0, free) == []
    assert [lost.id for lost in await watch.lost(101.0, free)] == [id]


async def test_a_beat_between_the_two_looks_clears_a_server() -> None:
    watch, id = Watch(ServerId(uuid4()), TTL), uuid4()
    watch.hear([peer(id, silent_for=2.6)], 100.0)
    await watch.lost(100.0, free)
    watch.hear([peer(id, silent_for=2.6, beat=1)], 102.0)
    assert await watch.lost(102.0, free) == []


async def test_a_silent_server_that_holds_its_lock_has_its_time_to_live() -> None:
    watch, id = Watch(ServerId(uuid4()), TTL), uuid4()
    for second in range(0, 15, 2):
        watch.hear([peer(id, silent_for=float(second))], float(second))
        assert await watch.lost(float(second), held) == []


async def test_a_server_that_is_silent_for_its_time_to_live_is_lost_whatever_holds_its_lock() -> None:
    watch, id = Watch(ServerId(uuid4()), TTL), uuid4()
    for second in range(0, 18, 2):
        watch.hear([peer(id, silent_for=float(second))], float(second))
    assert [lost.id for lost in await watch.lost(16.0, held)] == [id]


async def test_after_an_outage_nobody_is_lost_by_its_age_alone() -> None:
    watch, id = Watch(ServerId(uuid4()), TTL), uuid4()
    watch.hear([peer(id)], 0.0)
    watch.hear([peer(id, silent_for=300.0)], 300.0)
    assert await watch.lost(300.0, held) == []


async def test_a_server_behind_a_pooler_has_no_lock_and_only_its_age_counts() -> None:
    watch, id = Watch(ServerId(uuid4()), TTL), uuid4()
    watch.hear([peer(id, silent_for=5.0, lock_key=None)], 100.0)
    await watch.lost(100.0, free)
    assert await watch.lost(101.0, free) == []


async def test_a_server_does_not_give_itself_up() -> None:
    own = ServerId(uuid4())
    watch = Watch(own, TTL)
    watch.hear([peer(own, silent_for=60.0)], 100.0)
    await watch.lost(100.0, free)
    assert await watch.lost(101.0, free) == []
