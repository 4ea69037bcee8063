"""Actors: private state behind a bounded mailbox, one message at a time, restarted by the tree that owns them."""

from __future__ import annotations

import asyncio
import math
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Generator
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Final, Generic, Self, TypeVar

from .errors import QueuedTasksError

M = TypeVar("M")
M_contra = TypeVar("M_contra", contravariant=True)
T = TypeVar("T")

MAILBOX_BOUND: Final = 100_000  # generous: free slots limit what senders send, while an actor waits for PostgreSQL, too
_FAIR_SHARE: Final = 64  # messages that one actor receives before the others get a turn


class MailboxFull(QueuedTasksError):
    """An actor got messages faster than it receives them: a bug in the flow control, or an actor that hangs."""

    def __init__(self, name: str) -> None:
        super().__init__(
            f"the mailbox of {name} is full ({MAILBOX_BOUND} messages): it hangs, or its senders ignore its pace"
        )


class ActorKeptFailing(QueuedTasksError):
    """An actor failed more often than its `Restarts` allow; `error` is its last failure."""

    def __init__(self, name: str, error: BaseException, restarts: Restarts) -> None:
        super().__init__(
            f"{name} failed more than {restarts.most} times within {restarts.window:g} s, last with {error!r}; "
            "remove that cause, then start again"
        )
        self.name = name
        self.error = error


class Coalesced:
    """Base of messages that say nothing more when repeated: one equal to the last one queued is not queued again."""

    __slots__ = ()


class Reply(Generic[T]):
    """Where an actor puts its answer to an `ask`."""

    def __init__(self) -> None:
        self._future: asyncio.Future[T] = asyncio.get_running_loop().create_future()

    def set(self, answer: T) -> None:
        """Answer; an answer that comes too late, or second, goes nowhere."""
        if not self._future.done():
            self._future.set_result(answer)

    def __await__(self) -> Generator[Any, None, T]:
        return self._future.__await__()


class ActorRef(Generic[M_contra]):
    """The address and the mailbox of an actor; both outlive its restarts."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._queue: deque[Any] = deque()
        self._wakeup = asyncio.Event()
        self._closed = False

    def tell(self, message: M_contra) -> None:
        """Queue `message` for the actor; never waits. To a stopped actor it says nothing.

        Call it on the thread of the event loop.

        Raises:
            MailboxFull: nothing was queued. Let it end you: someone sends without waiting for free room.
        """
        queue = self._queue
        if self._closed or (isinstance(message, Coalesced) and queue and message == queue[-1]):
            return
        if len(queue) >= MAILBOX_BOUND:
            raise MailboxFull(self.name)
        queue.append(message)
        self._wakeup.set()

    async def ask(self, message: Callable[[Reply[T]], M_contra], *, timeout: float) -> T:
        """Tell what `message` makes of a reply, wait up to `timeout` seconds for it. For people, not between actors.

        Raises:
            TimeoutError: the actor is stopped, busy, or failed over this very message.
        """
        reply: Reply[T] = Reply()
        self.tell(message(reply))
        with suppress(TimeoutError):
            async with asyncio.timeout(timeout):
                return await reply
        raise TimeoutError(f"{self.name} did not answer within {timeout:g} s")

    def _tick(self, message: M_contra) -> None:
        """Tell the time, unless the actor still has to receive an earlier tick or has no room for one."""
        if len(self._queue) < MAILBOX_BOUND and not any(queued is message for queued in self._queue):
            self.tell(message)

    def _close(self) -> None:
        self._closed = True
        self._queue.clear()


class Actor(ABC, Generic[M]):
    """One duty: private state that changes only in `receive`.

    An exception ends the instance; the message it was receiving is dropped, and the next instance goes on with
    the rest of the mailbox.
    """

    ref: ActorRef[M]  # this actor's own address, there from `started` on

    @abstractmethod
    async def receive(self, message: M) -> None:
        """Act on one message. The next one is received when this returns."""

    async def started(self) -> None:
        """Acquire what the actor needs, before its first message."""

    async def stopped(self) -> None:
        """Release what `started` acquired; also called after a failure, but not after one of `started` itself."""


@dataclass(frozen=True, slots=True)
class Exited:
    """An instance of an actor ended by an error; its tree restarts it, unless it is stopping."""

    name: str
    error: BaseException


@dataclass(frozen=True, slots=True)
class Restarts:
    """How an actor is restarted: after pauses of `first` doubling to `longest`, at most `most` times in a `window`.

    In seconds.
    """

    first: float = 0.1
    longest: float = 5.0
    most: int = 10
    window: float = 60.0

    def pause(self, failures: int) -> float:
        """The seconds to wait after the last of so many `failures` within the window."""
        return min(self.first * 2.0 ** (failures - 1), self.longest)


DEFAULT_RESTARTS: Final = Restarts()


class Tree:
    """Owns actors: starts them, restarts the failed ones, ticks, and stops them all when its block is left.

    Actors stop in reverse order of their start. Each may take `stop_timeout` seconds for what is in its mailbox,
    is cancelled after that, and then has as long again for its `stopped` hook.

    Raises (from the block, once all actors have stopped):
        ActorKeptFailing: an actor failed too often. The block is cancelled for it.
    """

    def __init__(self, on_exit: Callable[[Exited], None], *, stop_timeout: float = 10.0) -> None:
        self.on_exit = on_exit
        self.stop_timeout = stop_timeout
        self.group = asyncio.TaskGroup()
        self._lives: dict[ActorRef[Any], _Life] = {}
        self._failure: ActorKeptFailing | None = None
        self._leaving = False

    def start(
        self, name: str, factory: Callable[[], Actor[M]], *, restarts: Restarts = DEFAULT_RESTARTS
    ) -> ActorRef[M]:
        """Start what `factory` makes, and make it anew after a failure. The mailbox is open at once."""
        ref: ActorRef[M] = ActorRef(name)
        self._lives[ref] = life = _Life(self, ref, factory, restarts)
        life.task.add_done_callback(lambda _: self._lives.pop(ref).end())
        return ref

    def every(self, ref: ActorRef[M], interval_seconds: float, message: M) -> None:
        """Tell `message` each interval until the actor stops; late ticks are skipped, never made up for."""
        if life := self._lives.get(ref):
            life.tickers.append(_Ticker(ref, interval_seconds, message))

    async def stop(self, ref: ActorRef[Any]) -> None:
        """Return when the actor has received what is in its mailbox and released its resources. Not for itself.

        From now on it gets no ticks; messages are still received until the mailbox is empty, ignored after that.
        """
        life = self._lives.get(ref)
        if life is None:
            return
        life.ask_to_stop()
        _, late = await asyncio.wait([life.task], timeout=self.stop_timeout)
        if late:
            self.on_exit(Exited(ref.name, TimeoutError(f"{ref.name} did not stop within {self.stop_timeout:g} s")))
            life.task.cancel()
            await asyncio.wait(late)

    def give_up(self, failure: ActorKeptFailing) -> None:
        """Stop everything and let the block raise `failure`; the first one counts."""
        if self._failure is None and not self._leaving:
            self._alarm.reschedule(0)
        self._failure = self._failure or failure

    async def __aenter__(self) -> Self:
        self._owned = AsyncExitStack()
        await self._owned.enter_async_context(self.group)
        # A timeout that never runs out by itself: the way to interrupt the block that mistakes no cancellation
        # from outside for its own.
        self._alarm = await asyncio.timeout(None).__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._leaving = True
        try:
            await self._alarm.__aexit__(kind, error, traceback)
        except TimeoutError:
            error = None
        async with self._owned:
            while self._lives:
                await self.stop(next(reversed(self._lives)))
        if error is None and self._failure is not None:
            raise self._failure from self._failure.error


class _Life:
    """The succession of instances behind one reference."""

    def __init__(self, tree: Tree, ref: ActorRef[Any], factory: Callable[[], Actor[Any]], restarts: Restarts) -> None:
        self.tickers: list[_Ticker] = []
        self._tree = tree
        self._ref = ref
        self._factory = factory
        self._restarts = restarts
        self._stopping = asyncio.Event()
        self._failures: deque[float] = deque()
        self.task = tree.group.create_task(self._live(), name=ref.name)

    def ask_to_stop(self) -> None:
        self._stopping.set()
        self._ref._wakeup.set()
        for ticker in self.tickers:
            ticker.cancel()

    def end(self) -> None:
        self.ask_to_stop()
        self._ref._close()

    async def _live(self) -> None:
        while not await self._instance_ends_well() and await self._rest():
            pass

    async def _instance_ends_well(self) -> bool:
        try:
            await self._run(self._factory())
        except (Exception, asyncio.CancelledError) as error:
            # A CancelledError can also come from something that the actor awaited; then it is a failure like others.
            cancelled = self.task.cancelling() > 0
            if not (cancelled and isinstance(error, asyncio.CancelledError)):
                self._tree.on_exit(Exited(self._ref.name, error))
            return cancelled or self._failed_too_often(error)
        return True

    async def _run(self, actor: Actor[Any]) -> None:
        actor.ref = self._ref
        await actor.started()
        try:
            await self._drain(actor)
        finally:
            async with asyncio.timeout(self._tree.stop_timeout):
                await actor.stopped()

    async def _drain(self, actor: Actor[Any]) -> None:
        queue, wakeup, receive = self._ref._queue, self._ref._wakeup, actor.receive
        while queue or not self._stopping.is_set():
            if not queue:
                wakeup.clear()
                await wakeup.wait()
            for _ in range(min(len(queue), _FAIR_SHARE)):
                await receive(queue.popleft())
            if queue:
                await asyncio.sleep(0)

    def _failed_too_often(self, error: BaseException) -> bool:
        now = asyncio.get_running_loop().time()
        self._failures.append(now)
        while self._failures[0] < now - self._restarts.window:
            self._failures.popleft()
        if len(self._failures) <= self._restarts.most:
            return False
        self._tree.give_up(ActorKeptFailing(self._ref.name, error, self._restarts))
        return True

    async def _rest(self) -> bool:
        """Pause before the next instance; False when a stop leaves it nothing to do."""
        pause = self._restarts.pause(len(self._failures))
        if self._ref._queue:
            await asyncio.sleep(pause)
        else:
            with suppress(TimeoutError):
                async with asyncio.timeout(pause):
                    await self._stopping.wait()
        return bool(self._ref._queue) or not self._stopping.is_set()


class _Ticker:
    """Tells one message on a fixed grid of times."""

    def __init__(self, ref: ActorRef[Any], interval: float, message: object) -> None:
        self._ref = ref
        self._interval = interval
        self._message = message
        self._loop = asyncio.get_running_loop()
        self._due = self._loop.time() + interval
        self._timer = self._loop.call_at(self._due, self._fire)

    def _fire(self) -> None:
        self._ref._tick(self._message)
        missed = max(0, math.floor((self._loop.time() - self._due) / self._interval))
        self._due += self._interval * (missed + 1)
        self._timer = self._loop.call_at(self._due, self._fire)

    def cancel(self) -> None:
        self._timer.cancel()
