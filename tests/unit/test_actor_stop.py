"""How actors stop: what they still receive, in which order they go, who is not waited for."""

from __future__ import annotations

import asyncio

import pytest

from queued_tasks.runtime.actor import (
    MAILBOX_BOUND,
    Exited,
    Restarts,
    Tree,
)
from tests.adder import AT_ONCE, Add, Adder, Fail, Hold, Message, ignore, messages, total


async def test_stop_receives_what_is_queued_then_releases_the_resources() -> None:
    journal: list[object] = []
    sent: list[Message] = [Add(number) for number in range(200)]
    async with Tree(ignore) as tree:
        ref = tree.start("adder", lambda: Adder(journal))
        for message in sent:
            ref.tell(message)
        await tree.stop(ref)
        assert journal == ["started", *sent, "stopped"]


async def test_an_actor_that_is_stopping_still_receives_what_it_tells_itself() -> None:
    journal: list[object] = []

    class Echo(Adder):
        async def receive(self, message: Message) -> None:
            await super().receive(message)
            if message == Add(1):
                self.ref.tell(Add(2))

    async with Tree(ignore) as tree:
        tree.start("echo", lambda: Echo(journal)).tell(Add(1))
    assert messages(journal) == [Add(1), Add(2)]


async def test_a_stopped_actor_ignores_what_it_is_told() -> None:
    journal: list[object] = []
    async with Tree(ignore) as tree:
        ref = tree.start("adder", lambda: Adder(journal))
        await tree.stop(ref)
        for _ in range(MAILBOX_BOUND + 1):
            ref.tell(Add(1))
        await tree.stop(ref)
    assert messages(journal) == []


async def test_an_actor_that_failed_while_stopping_still_receives_the_rest() -> None:
    journal: list[object] = []
    async with Tree(ignore) as tree:
        ref = tree.start("adder", lambda: Adder(journal), restarts=AT_ONCE)
        ref.tell(Fail(ValueError("no")))
        ref.tell(Add(1))
        await tree.stop(ref)
        assert messages(journal) == [Add(1)]


async def test_a_stop_does_not_wait_for_the_pause_of_an_actor_without_messages() -> None:
    failed = asyncio.Event()
    async with Tree(lambda _: failed.set()) as tree:
        ref = tree.start("adder", lambda: Adder([]), restarts=Restarts(first=3600, longest=3600))
        ref.tell(Fail(ValueError("no")))
        await failed.wait()
    assert asyncio.all_tasks() == {asyncio.current_task()}


async def test_a_stop_does_not_shorten_the_pause_before_messages_that_wait() -> None:
    loop = asyncio.get_running_loop()
    async with Tree(ignore) as tree:
        ref = tree.start("adder", lambda: Adder([]), restarts=Restarts(first=0.05))
        ref.tell(Fail(ValueError("no")))
        ref.tell(Add(1))
        before = loop.time()
        await tree.stop(ref)
        assert loop.time() - before >= 0.05


async def test_actors_stop_in_reverse_order_of_their_start() -> None:
    order: list[str] = []

    class Named(Adder):
        async def stopped(self) -> None:
            order.append(self.ref.name)

    async with Tree(ignore) as tree:
        for name in ("first", "second", "third"):
            await total(tree.start(name, lambda: Named([])))
    assert order == ["third", "second", "first"]


async def test_an_actor_that_does_not_stop_in_time_is_cancelled_and_reported() -> None:
    exits: list[Exited] = []
    journal: list[object] = []
    async with Tree(exits.append, stop_timeout=0.05) as tree:
        tree.start("stuck", lambda: Adder(journal)).tell(Hold(asyncio.Event()))
    assert journal == ["started", "stopped"]
    assert [str(exited.error) for exited in exits] == ["stuck did not stop within 0.05 s"]


async def test_a_stopped_hook_that_hangs_does_not_hold_up_the_restart() -> None:
    class Hanging(Adder):
        async def stopped(self) -> None:
            await asyncio.Event().wait()

    async with Tree(ignore, stop_timeout=0.05) as tree:
        ref = tree.start("hanging", lambda: Hanging([]), restarts=AT_ONCE)
        ref.tell(Fail(ValueError("no")))
        assert await total(ref) == 0


async def test_an_error_of_the_block_passes_through_after_the_actors_have_stopped() -> None:
    journal: list[object] = []

    async def own() -> None:
        async with Tree(ignore) as tree:
            tree.start("adder", lambda: Adder(journal)).tell(Add(1))
            raise LookupError

    with pytest.raises(LookupError):
        await own()
    assert journal == ["started", Add(1), "stopped"]


@pytest.mark.parametrize("cancellations", [1, 2])
async def test_cancelling_the_owner_leaves_no_actor_behind(cancellations: int) -> None:
    journal: list[object] = []
    entered = asyncio.Event()
    free = asyncio.Event()

    async def own() -> None:
        async with Tree(ignore) as tree:
            ref = tree.start("adder", lambda: Adder(journal))
            await total(ref)
            ref.tell(Hold(free))
            entered.set()
            await asyncio.Event().wait()

    owner = asyncio.create_task(own())
    await entered.wait()
    for _ in range(cancellations):
        owner.cancel()
        await asyncio.sleep(0)
    if cancellations == 1:
        free.set()
    with pytest.raises(asyncio.CancelledError):
        await owner
    assert journal[-1] == "stopped"
    assert asyncio.all_tasks() == {asyncio.current_task()}
