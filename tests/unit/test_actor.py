"""The actor kernel: mailboxes, questions, ticks."""

from __future__ import annotations

import asyncio
import gc
import weakref
from collections.abc import Callable

import pytest

from queued_tasks.runtime.actor import (
    MAILBOX_BOUND,
    Actor,
    Exited,
    MailboxFull,
    Tree,
)
from tests.adder import Add, Adder, Hold, Message, Total, Wake, ignore, messages, total


async def test_messages_are_received_in_order() -> None:
    journal: list[object] = []
    sent: list[Message] = [Add(number) for number in range(1000)]
    async with Tree(ignore) as tree:
        ref = tree.start("adder", lambda: Adder(journal))
        for message in sent:
            ref.tell(message)
    assert messages(journal) == sent


async def test_a_storm_of_equal_notifications_is_one_message() -> None:
    journal: list[object] = []
    async with Tree(ignore) as tree:
        ref = tree.start("adder", lambda: Adder(journal))
        for _ in range(MAILBOX_BOUND * 2):
            ref.tell(Wake("tasks"))
    assert messages(journal) == [Wake("tasks")]


async def test_only_consecutive_equal_notifications_are_one() -> None:
    journal: list[object] = []
    sent: list[Message] = [Wake("a"), Wake("b"), Wake("a"), Add(1), Wake("a")]
    async with Tree(ignore) as tree:
        ref = tree.start("adder", lambda: Adder(journal))
        for message in sent:
            ref.tell(message)
    assert messages(journal) == sent


async def test_equal_messages_that_do_not_opt_in_are_all_received() -> None:
    journal: list[object] = []
    async with Tree(ignore) as tree:
        ref = tree.start("adder", lambda: Adder(journal))
        ref.tell(Add(1))
        ref.tell(Add(1))
    assert messages(journal) == [Add(1), Add(1)]


async def test_a_full_mailbox_refuses_loudly() -> None:
    async with Tree(ignore) as tree:
        ref = tree.start("adder", lambda: Adder([]))
        for _ in range(MAILBOX_BOUND):
            ref.tell(Add(1))
        with pytest.raises(MailboxFull, match="the mailbox of adder is full"):
            ref.tell(Add(1))


async def test_a_busy_actor_lets_others_have_their_turn() -> None:
    first: list[object] = []
    second: list[object] = []
    async with Tree(ignore) as tree:
        busy = tree.start("busy", lambda: Adder(first))
        other = tree.start("other", lambda: Adder(second))
        for _ in range(MAILBOX_BOUND):
            busy.tell(Add(1))
        await total(other)
        assert len(messages(first)) < MAILBOX_BOUND


async def test_ask_brings_the_answer() -> None:
    async with Tree(ignore) as tree:
        ref = tree.start("adder", lambda: Adder([]))
        ref.tell(Add(2))
        ref.tell(Add(3))
        assert await total(ref) == 5


async def test_ask_gives_up_when_the_actor_is_busy() -> None:
    free = asyncio.Event()
    async with Tree(ignore) as tree:
        ref = tree.start("adder", lambda: Adder([]))
        ref.tell(Hold(free))
        with pytest.raises(TimeoutError, match=r"adder did not answer within 0\.01 s"):
            await ref.ask(Total, timeout=0.01)
        free.set()


async def test_an_answer_after_the_timeout_hurts_nobody() -> None:
    free = asyncio.Event()
    exits: list[Exited] = []
    async with Tree(exits.append) as tree:
        ref = tree.start("adder", lambda: Adder([]))
        ref.tell(Hold(free))
        with pytest.raises(TimeoutError):
            await ref.ask(Total, timeout=0.01)
        free.set()
        await total(ref)
    assert exits == []


async def test_time_is_told_again_and_again() -> None:
    seen = Sightings(3)
    async with Tree(ignore) as tree:
        clock = tree.start("clock", seen.actor)
        tree.every(clock, 0.005, Wake("tick"))
        await seen.enough.wait()
    assert messages(seen.journal)[:3] == [Wake("tick")] * 3


async def test_ticks_do_not_pile_up_before_a_busy_actor() -> None:
    journal: list[object] = []
    free = asyncio.Event()
    async with Tree(ignore) as tree:
        busy = tree.start("busy", lambda: Adder(journal))
        busy.tell(Hold(free))
        tree.every(busy, 0.001, Wake("tick"))
        seen = Sightings(20)
        clock = tree.start("clock", seen.actor)
        tree.every(clock, 0.001, Wake("tick"))
        for number in range(20):
            await seen.next()
            busy.tell(Add(number))
        free.set()
        await tree.stop(busy)
    assert messages(journal).count(Wake("tick")) == 1


async def test_a_stopped_actor_leaves_no_timer_behind() -> None:
    class Tick:
        pass

    class Clock(Actor[Tick]):
        async def receive(self, message: Tick) -> None:
            raise AssertionError(f"nobody tells it anything, but: {message}")

    tick = Tick()
    kept = weakref.ref(tick)
    async with Tree(ignore) as tree:
        clock = tree.start("clock", Clock)
        tree.every(clock, 3600, tick)
        del tick
        assert kept() is not None
        await tree.stop(clock)
        gc.collect()
        assert kept() is None


class Sightings:
    """Counts what an actor receives."""

    def __init__(self, enough: int) -> None:
        self.journal: list[object] = []
        self.enough = asyncio.Event()
        self._wanted = enough
        self._one = asyncio.Event()

    async def next(self) -> None:
        await self._one.wait()
        self._one.clear()

    @property
    def actor(self) -> Callable[[], Adder]:
        seen = self

        class Seen(Adder):
            async def receive(self, message: Message) -> None:
                await super().receive(message)
                seen._one.set()
                if len(messages(seen.journal)) >= seen._wanted:
                    seen.enough.set()

        return lambda: Seen(self.journal)
