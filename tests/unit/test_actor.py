"""The actor kernel: mailboxes, restarts, ticks, stopping."""

from __future__ import annotations

import asyncio
import gc
import weakref
from collections.abc import Callable
from dataclasses import dataclass

import pytest

from queued_tasks.runtime.actor import (
    MAILBOX_BOUND,
    Actor,
    ActorKeptFailing,
    ActorRef,
    Coalesced,
    Exited,
    MailboxFull,
    Reply,
    Restarts,
    Tree,
)

AT_ONCE = Restarts(first=0.0)


@dataclass(frozen=True, slots=True)
class Add:
    number: int


@dataclass(frozen=True, slots=True)
class Wake(Coalesced):
    topic: str = ""


@dataclass(frozen=True, slots=True)
class Fail:
    error: BaseException


@dataclass(frozen=True, slots=True)
class Total:
    reply: Reply[int]


@dataclass(frozen=True, slots=True)
class Hold:
    until: asyncio.Event


Message = Add | Wake | Fail | Total | Hold


class Adder(Actor[Message]):
    """Adds in private; what it saw and where it stands is in `journal`, which outlives it."""

    def __init__(self, journal: list[object]) -> None:
        self._journal = journal
        self._total = 0

    async def started(self) -> None:
        self._journal.append("started")

    async def stopped(self) -> None:
        self._journal.append("stopped")

    async def receive(self, message: Message) -> None:
        match message:
            case Add(number):
                self._total += number
            case Fail(error):
                raise error
            case Total(reply):
                reply.set(self._total)
            case Hold(until):
                await until.wait()
            case Wake():
                pass
        self._journal.append(message)


async def total(ref: ActorRef[Message]) -> int:
    return await ref.ask(Total, timeout=10)


def messages(journal: list[object]) -> list[object]:
    return [entry for entry in journal if isinstance(entry, Add | Wake)]


def ignore(_: Exited) -> None:
    """For tests that look elsewhere."""


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
