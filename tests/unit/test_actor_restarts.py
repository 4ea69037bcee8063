"""Actors that fail: what is told, kept and released, and when it is too much."""

from __future__ import annotations

import asyncio

import pytest

from queued_tasks.runtime.actor import (
    ActorKeptFailing,
    Exited,
    Restarts,
    Tree,
)
from tests.adder import AT_ONCE, Add, Adder, Fail, Hold, ignore, messages, total


async def test_a_failed_actor_starts_again_with_fresh_state() -> None:
    async with Tree(ignore) as tree:
        ref = tree.start("adder", lambda: Adder([]), restarts=AT_ONCE)
        ref.tell(Add(7))
        ref.tell(Fail(ValueError("no")))
        assert await total(ref) == 0


async def test_the_parent_is_told_why_an_actor_exited() -> None:
    exits: list[Exited] = []
    error = ValueError("no")
    async with Tree(exits.append) as tree:
        ref = tree.start("adder", lambda: Adder([]), restarts=AT_ONCE)
        ref.tell(Fail(error))
        await total(ref)
    assert exits == [Exited("adder", error)]


async def test_the_mailbox_outlives_the_failure_without_the_message_that_caused_it() -> None:
    exits: list[Exited] = []
    async with Tree(exits.append) as tree:
        ref = tree.start("adder", lambda: Adder([]), restarts=AT_ONCE)
        ref.tell(Fail(ValueError("no")))
        ref.tell(Add(2))
        ref.tell(Add(3))
        assert await total(ref) == 5
    assert len(exits) == 1


async def test_a_failed_actor_releases_what_it_acquired_before_the_next_one_starts() -> None:
    journal: list[object] = []
    async with Tree(ignore) as tree:
        ref = tree.start("adder", lambda: Adder(journal), restarts=AT_ONCE)
        ref.tell(Fail(ValueError("no")))
        await total(ref)
    assert [entry for entry in journal if isinstance(entry, str)] == ["started", "stopped", "started", "stopped"]


async def test_an_actor_that_can_not_start_is_tried_again() -> None:
    tries: list[int] = []

    def factory() -> Adder:
        tries.append(1)
        if len(tries) < 3:
            raise ConnectionError("not yet")
        return Adder([])

    async with Tree(ignore) as tree:
        ref = tree.start("adder", factory, restarts=AT_ONCE)
        assert await total(ref) == 0
    assert len(tries) == 3


async def test_a_cancelled_error_that_nobody_asked_for_is_a_failure_like_others() -> None:
    exits: list[Exited] = []
    async with Tree(exits.append) as tree:
        ref = tree.start("adder", lambda: Adder([]), restarts=AT_ONCE)
        ref.tell(Fail(asyncio.CancelledError()))
        await total(ref)
    assert isinstance(exits[0].error, asyncio.CancelledError)


def test_pauses_between_restarts_double_up_to_a_limit() -> None:
    restarts = Restarts(first=0.1, longest=5.0)
    assert [restarts.pause(failures) for failures in (1, 2, 3, 6, 7, 1000)] == [0.1, 0.2, 0.4, 3.2, 5.0, 5.0]


async def test_a_restart_waits_for_its_pause() -> None:
    loop = asyncio.get_running_loop()
    async with Tree(ignore) as tree:
        ref = tree.start("adder", lambda: Adder([]), restarts=Restarts(first=0.05))
        ref.tell(Fail(ValueError("no")))
        before = loop.time()
        await total(ref)
        assert loop.time() - before >= 0.05


async def test_failures_outside_the_window_do_not_count() -> None:
    exits: list[Exited] = []
    async with Tree(exits.append) as tree:
        ref = tree.start("adder", lambda: Adder([]), restarts=Restarts(first=0.02, most=1, window=0.01))
        for _ in range(4):
            ref.tell(Fail(ValueError("no")))
        await total(ref)
    assert len(exits) == 4


async def tree_of_failures(errors: dict[str, BaseException], restarts: Restarts) -> None:
    async with Tree(ignore) as tree:
        for name, error in errors.items():
            ref = tree.start(name, lambda: Adder([]), restarts=restarts)
            for _ in range(restarts.most + 1):
                ref.tell(Fail(error))
        await asyncio.Event().wait()


async def test_too_many_restarts_end_the_tree_with_the_reason() -> None:
    error = ValueError("no")
    reason = "adder failed more than 3 times within 60 s, last with ValueError"
    with pytest.raises(ActorKeptFailing, match=reason) as end:
        await tree_of_failures({"adder": error}, Restarts(first=0.0, most=3))
    assert (end.value.name, end.value.error) == ("adder", error)


async def test_two_actors_that_are_given_up_at_once_end_the_tree_with_the_first() -> None:
    errors: dict[str, BaseException] = {"first": ValueError("no"), "second": ValueError("neither")}
    with pytest.raises(ActorKeptFailing, match="first failed"):
        await tree_of_failures(errors, Restarts(most=0))


async def test_an_actor_that_is_given_up_while_the_block_cleans_up_changes_nothing() -> None:
    fallen = {"first": asyncio.Event(), "second": asyncio.Event()}

    async def own() -> None:
        async with Tree(lambda exited: fallen[exited.name].set()) as tree:
            first, second = (tree.start(name, lambda: Adder([]), restarts=Restarts(most=0)) for name in fallen)
            first.tell(Fail(ValueError("no")))
            try:
                await asyncio.Event().wait()
            finally:
                second.tell(Fail(ValueError("neither")))
                await fallen["second"].wait()

    with pytest.raises(ActorKeptFailing, match="first failed"):
        await own()


async def test_the_neighbours_of_an_actor_that_is_given_up_finish_their_messages() -> None:
    journal: list[object] = []
    fallen = asyncio.Event()

    async def own() -> None:
        async with Tree(lambda _: fallen.set()) as tree:
            neighbour = tree.start("neighbour", lambda: Adder(journal))
            neighbour.tell(Hold(fallen))
            neighbour.tell(Add(1))
            tree.start("failing", lambda: Adder([]), restarts=Restarts(most=0)).tell(Fail(ValueError("no")))
            await asyncio.Event().wait()

    with pytest.raises(ActorKeptFailing):
        await own()
    assert (messages(journal), journal[-1]) == ([Add(1)], "stopped")
